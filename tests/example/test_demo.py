"""`make demo`, run as a user does: a process of its own on a port."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from example_app import demo
from tests.servers import valkey
from tests.servers.ports import free_port

pytestmark = pytest.mark.timeout(180)  # three replicas and an outage, on a machine that may be busy

ROOT = Path(__file__).parents[2]


def run_demo(port: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "example_app.demo"],
        cwd=ROOT,
        env={
            **{name: value for name, value in os.environ.items() if name != "REDIS_URL"},
            "PORT": str(port),
            **environment,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept") / "kept.db"


@pytest.fixture(scope="module")
def told(kept: Path) -> subprocess.CompletedProcess[str]:
    return run_demo(free_port(), EXAMPLE_DB=str(kept))


def request_lines(told: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in told.stdout.splitlines() if re.match(r"  [ABC]  (GET|POST|PUT) ", line)]


def test_the_story_ends_well(told: subprocess.CompletedProcess[str]) -> None:
    """Every fact of the story holds, so it exits 0, and without a terminal it does not stay."""
    assert told.returncode == 0, told.stdout + told.stderr
    assert "Every fact held." in told.stdout
    assert "NOT SO" not in told.stdout
    assert told.stderr == ""


def test_each_request_is_printed_with_its_cache_status_and_time(told: subprocess.CompletedProcess[str]) -> None:
    """Request lines carry replica, method, path, status, Cache-Status, and milliseconds, in aligned columns."""
    lines = request_lines(told)
    assert len(lines) > 40
    assert {line[2] for line in lines} == set("ABC")
    statuses = {re.search(r" ([2-5]\d\d) ", line).start() for line in lines}  # type: ignore[union-attr]
    assert len(statuses) == 1
    assert all(re.search(r" \d+\.\d( |$)", line) for line in lines)
    assert sum(" hit; ttl=" in line for line in lines) >= 8
    assert any(" fwd=uri-miss; " in line for line in lines)
    assert max(map(len, told.stdout.splitlines())) <= 160


@pytest.mark.parametrize(
    "fact",
    [
        "the second was a hit",
        "what A had made B served too",
        "a 304 without a body",
        "became $75,870",
        "the bound is 2000 ms",
        "0 of them asked after that and answered with the old price",
        "3 replicas have applied it after",
        "stale, and nobody waited",
        "200 clients, 1 SQL query",
        "bob gets his own",
        "403 for bob and 401 for nobody",
        "said that its purge waits",
        "nothing down: ",
        "nothing stale: A showed the old price 0 times",
        "cut off, showed it to requests up to",
        "in touch again",
        "the inspector's page, open all the while, said that Redis was away",
        "the next discount's purge was done at once",
    ],
)
def test_the_story_tells(told: subprocess.CompletedProcess[str], fact: str) -> None:
    """Each chapter's fact was checked and held."""
    (line,) = [line for line in told.stdout.splitlines() if fact in line]
    assert line.startswith("  ok ")


def test_it_ends_with_what_to_try(told: subprocess.CompletedProcess[str]) -> None:
    """The last lines are the inspector's address, who may see it, and three commands that a shell finds."""
    lines = told.stdout.rstrip().splitlines()[-5:]
    assert re.fullmatch(
        r"See it run: http://127\.0\.0\.1:\d+/_cache/  \(sign in as admin, password showroom\)", lines[0]
    )
    commands = [line.split() for line in lines[2:]]
    assert [words[1] for words in commands] == ["stats", "tail", "doctor"]
    for program in {words[0] for words in commands}:
        ran = subprocess.run(f"{program} --version", shell=True, cwd=ROOT, capture_output=True, text=True, check=False)
        assert ran.stdout.startswith("cacheinval"), ran
    assert all(re.search(r" --url redis://127\.0\.0\.1:\d+/0 --namespace showroom$", line) for line in lines[2:])


def test_no_colours_without_a_terminal(told: subprocess.CompletedProcess[str]) -> None:
    """Output that goes into a file has no escape codes."""
    assert "\x1b" not in told.stdout


def test_a_kept_database_is_left_alone(told: subprocess.CompletedProcess[str], kept: Path) -> None:
    """The story starts from the published prices and never touches the database that EXAMPLE_DB names."""
    assert told.returncode == 0
    assert not kept.exists()


def test_an_outage_is_told_by_the_replicas(told: subprocess.CompletedProcess[str]) -> None:
    """While Redis is away each replica answers, and says that it is cut off; a mutation says that its purge waits."""
    cut_off = [line[2] for line in request_lines(told) if "detail=disconnected" in line]
    assert set(cut_off) == set("ABC")
    assert sum("purge queued" in line for line in request_lines(told)) == 1


def test_a_redis_of_yours_is_used_and_lives() -> None:
    """With REDIS_URL the story is played over that server, which is not killed; nothing of an earlier run is served."""
    with valkey() as yours:
        pid = yours.pid
        for _ in range(2):
            ended = run_demo(free_port(), REDIS_URL=yours.url)
            assert ended.returncode == 0, ended.stdout + ended.stderr
            assert "over the Redis that you named" in ended.stdout
            assert "Redis is yours, and is not killed" in ended.stdout
        assert yours.pid == pid
        assert yours.execute("PING")


def test_a_redis_that_is_not_there_is_one_clear_line() -> None:
    """A REDIS_URL that leads nowhere is said, and nothing is started."""
    ended = run_demo(free_port(), REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert re.fullmatch(r"demo: the Redis of REDIS_URL cannot be used: .+\n", ended.stderr)


def test_other_replicas_go_round_a_port_that_is_taken() -> None:
    """Only the first port is asked for; the others are the next that are free."""
    first = free_port()
    with socket.socket() as other:
        other.bind(("127.0.0.1", first + 1))
        other.listen()
        assert demo.ports_from(first) == [first, first + 2, first + 3]


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
