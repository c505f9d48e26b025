"""`make demo`, run as a user does: a process of its own on a port."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run_demo(port: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "example_app.demo"],
        cwd=ROOT,
        env={**os.environ, "PORT": str(port), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=45,
        check=False,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept") / "kept.db"


@pytest.fixture(scope="module")
def told(kept: Path) -> subprocess.CompletedProcess[str]:
    return run_demo(free_port(), EXAMPLE_DB=str(kept))


def test_the_story_ends_well(told: subprocess.CompletedProcess[str]) -> None:
    """Every fact of the story holds, so it exits 0, and without a terminal it does not stay."""
    assert told.returncode == 0, told.stdout + told.stderr
    assert "Every fact held." in told.stdout
    assert "NOT SO" not in told.stdout
    assert told.stderr == ""


def test_each_request_is_printed_with_its_cache_status_and_time(told: subprocess.CompletedProcess[str]) -> None:
    """Request lines carry method, path, status, Cache-Status, and milliseconds, in aligned columns."""
    lines = [line for line in told.stdout.splitlines() if re.match(r"  (GET|POST|PUT) ", line)]
    assert len(lines) > 20
    statuses = {re.search(r" ([2-5]\d\d) ", line).start() for line in lines}  # type: ignore[union-attr]
    assert len(statuses) == 1
    assert all(re.search(r" \d+\.\d( |$)", line) for line in lines)
    assert sum("cacheinval; hit" in line for line in lines) >= 8
    assert any("fwd=" in line for line in lines)


@pytest.mark.parametrize(
    "fact",
    [
        "the second was a hit",
        "a 304 without a body",
        "became $75,870",
        "stale, and nobody waited",
        "200 clients, 1 SQL query",
        "bob gets his own",
        "403 for bob and 401 for nobody",
    ],
)
def test_the_story_tells(told: subprocess.CompletedProcess[str], fact: str) -> None:
    """Each chapter's fact was checked and held."""
    (line,) = [line for line in told.stdout.splitlines() if fact in line]
    assert line.startswith("  ok ")


def test_no_colours_without_a_terminal(told: subprocess.CompletedProcess[str]) -> None:
    """Output that goes into a file has no escape codes."""
    assert "\x1b" not in told.stdout


def test_a_kept_database_is_left_alone(told: subprocess.CompletedProcess[str], kept: Path) -> None:
    """The story starts from the published prices and never touches the database that EXAMPLE_DB names."""
    assert told.returncode == 0
    assert not kept.exists()


def test_a_taken_port_is_one_clear_line() -> None:
    """When somebody listens on the port the demo says so, names the way out, and exits 1."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ended = run_demo(port)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert re.fullmatch(rf"demo: port {port}: .+ Choose another, say PORT=\d+\n", ended.stderr)


@pytest.mark.parametrize("port", ["http", "0", "70000", "-1"])
def test_a_port_that_is_none_is_one_clear_line(port: str) -> None:
    """A PORT that cannot be one is refused by name, not by a traceback."""
    ended = run_demo(port)
    assert ended.returncode == 1
    assert ended.stderr == f"demo: PORT={port} is not a port number: choose one from 1 to 65535\n"
