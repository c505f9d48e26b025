"""Processes of an app, and what is left of them when this one is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.servers import processes, until
from tests.servers.processes import ServerName

APP = "tests.servers.selftest.served:app"
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn", "granian"])
def test_each_answers_for_itself(server: ServerName) -> None:
    """Two processes on two ports with the environment that was asked for, gone after the block."""
    with processes(APP, 2, server=server, environment={"NAME": "shop"}) as fleet:
        answers = [httpx.get(url).json() for url in fleet.urls]
        assert [answer["name"] for answer in answers] == ["shop", "shop"]
        pids = {answer["pid"] for answer in answers}
        assert len(pids) == 2
        fleet.pause(0)
        with pytest.raises(httpx.TimeoutException):
            httpx.get(fleet.urls[0], timeout=0.1)
        assert httpx.get(fleet.urls[1]).json() == answers[1]
        fleet.resume(0)
        assert httpx.get(fleet.urls[0]).json() == answers[0]
        fleet.kill(0)
        # The kernel may still take a connection for a process that is about to be gone.
        with pytest.raises(httpx.NetworkError):
            httpx.get(fleet.urls[0])
        fleet.restart(0, NAME="another")
        answer = httpx.get(fleet.urls[0]).json()
        assert answer["name"] == "another"
        pids.add(answer["pid"])
        assert len(pids) == 3
    until(lambda: not any(running(pid) for pid in pids), "the end of all")


def test_an_app_that_does_not_start_fails_with_its_output(tmp_path: Path) -> None:
    """The traceback of the app is in the failure, which does not wait for the deadline."""
    (tmp_path / "broken.py").write_text("raise RuntimeError('out of order')\n")
    with (
        pytest.raises(AssertionError, match="out of order"),
        processes("broken:app", 1, directory=tmp_path),
    ):
        pass


def test_children_go_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """However the process of the tests ends, and even if a child is paused, it does not stay behind."""
    script = (
        "import os, signal, sys\n"
        "from tests.servers import valkey\n"
        "with valkey() as server:\n"
        "    server.pause()\n"
        "    print(server.pid, server.directory, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == -signal.SIGKILL, result.stderr
    pid = int(result.stdout.split()[0])
    until(lambda: not running(pid), "the end of the server")


def running(pid: int) -> bool:
    """Whether there is a process of this number that has not ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
