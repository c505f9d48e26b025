"""The measurements run, at sizes that say nothing about speed, and print what they promise."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from bench import loading
from bench.__main__ import NAMES, main
from bench.expiry import _most_per_expiry
from bench.report import Options, Table, reached

ROOT = Path(__file__).parent.parent.parent
IN_PROCESS = {
    "in_process": ["Front hit, in process", "A route that is not cached, in process"],
    "route_hit": ["Route hit behind an auth dependency, in process"],
    "cold_burst": ["Cold burst, one process"],
    "codec": ["The second tier's bytes"],
    "scaling": ["Hit cost against stored responses"],
    "purge": ["Purge of a tag"],
    "telemetry": ["Front hit with telemetry, in process", "What the cache's own telemetry adds to a front hit"],
    "propagation": ["Propagation of a purge"],
    "replicas": [
        "A hit in L2, beside a bare GET",
        "Cold burst over four replicas",
        "What the log costs the server",
        "A thousand replicas, a million tags",
        "Memory of what is stored and purged",
    ],
    "sources": ["From an event to every replica"],
    "load": [
        "Waiting for every replica",
        "Purges a second",
        "Heartbeats of a thousand replicas",
        "More replicas on one server",
    ],
    "publishers": ["Processes that only publish"],
    "inspector": ["The inspector's part of the event loop"],
    "confirming": ["What a confirmation costs"],
}
SERVED = {
    "uvicorn": ["Through uvicorn, 1 KiB"],
    "server": ["Hits inside the server: 1 KiB, a browser's head, heads repeat"],
    "expiry": ["A hot key expiring under load"],
}


def tables(text: str) -> list[list[list[str]]]:
    """The cells of each Markdown table in a text."""
    found: list[list[list[str]]] = []
    inside = False
    for line in text.splitlines():
        if line.startswith("|"):
            if not inside:
                found.append([])
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        inside = line.startswith("|")
    return found


@pytest.mark.parametrize("name", [*IN_PROCESS, *SERVED])
def test_each_measurement_runs_and_prints_its_tables(name, capsys):
    """`python -m bench NAME` prints its titles, and tables whose rows all have as many cells as the columns."""
    assert main([name, "--quick", "--no-wrk", "--no-header"]) == 0
    out = capsys.readouterr().out
    titles = [line.removeprefix("### ") for line in out.splitlines() if line.startswith("### ")]
    assert titles == (IN_PROCESS | SERVED)[name]
    printed = tables(out)
    assert len(printed) == len(titles)
    for columns, _, *rows in printed:
        assert columns[-1] == ("events" if name == "sources" else "reached")
        assert rows
        assert all(len(row) == len(columns) for row in rows)
        assert name == "replicas" or any(row[-1] for row in rows)


@pytest.mark.parametrize("first", ["succeeds", "fails", "is cancelled"])
def test_the_cold_burst_reaches_its_target(first):
    """One handler call for a burst, two where the first forward fails or is cancelled."""
    (table,) = import_module(NAMES["cold_burst"]).run(Options(quick=True))
    row = next(row for row in table.rows if row[0].endswith(first))
    assert row[-1] == "yes", row


def test_names_run_in_processes_of_their_own():
    """Several names give several tables after one header that names the machine and its load."""
    ran = subprocess.run(
        [sys.executable, "-m", "bench", "purge", "cold_burst", "--quick"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(tables(ran.stdout)) == 2
    assert ran.stdout.startswith("Measured on ")
    assert "load averages" in ran.stdout.splitlines()[0]


def test_an_unknown_name_is_refused(capsys):
    """A name that nothing has gives an error that lists the names."""
    with pytest.raises(SystemExit):
        main(["speed"])
    assert "cold_burst" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("calls", "most"),
    [([0.0, 2.1, 4.2], 1), ([0.0, 2.1, 2.2, 4.3], 2), ([0.0, 2.0, 2.1, 2.2], 3), ([0.0], 1)],
)
def test_calls_close_together_count_for_one_expiry(calls, most):
    """Handler calls within a quarter of a lifetime are for the same expiry."""
    assert _most_per_expiry(calls, 2.0) == most


def test_what_wrk_prints_is_read():
    """Rate, 99th percentile, refused answers and requests come from wrk's report."""
    report = (
        "Running 3s test @ http://127.0.0.1:1\n  1 threads and 32 connections\n  Latency Distribution\n"
        "     50%    1.08ms\n     99%  930.00us\n  96325 requests in 3.00s, 119.43MB read\n"
        "  Non-2xx or 3xx responses: 7\nRequests/sec:  32098.71\n"
    )
    assert loading._read(report) == (32098.71, 0.93, 7, 96325.0)
    with pytest.raises(RuntimeError, match="something else"):
        loading._read("connection refused")


def test_a_table_is_markdown():
    """The title, how it was measured, the columns and the rows stand in that order."""
    table = Table("Speed", "By hand.", ("what", "µs"), [("all of it", "3")])
    assert table.markdown() == "### Speed\n\nBy hand.\n\n| what | µs |\n| --- | ---: |\n| all of it | 3 |\n"
    assert reached(ok=True) == "yes"
    assert "no" in reached(ok=False)
