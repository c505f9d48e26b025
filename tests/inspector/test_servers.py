"""The stream of events over real connections."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fastapi_cacheinval.testing.servers.waiting import until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A uvicorn that waits for open answers for as long as it takes, as it does by default; its URL and process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", "uvicorn", "tests.inspector.served:app", "--fd", str(listener.fileno())]
        with subprocess.Popen(
            command, cwd=ROOT, env={**os.environ}, pass_fds=[listener.fileno()], stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                # A request that comes before it runs waits in the socket.
                yield f"http://127.0.0.1:{listener.getsockname()[1]}", process
            finally:
                process.kill()


def test_an_open_page_does_not_hold_up_a_server_that_stops(server: tuple[str, subprocess.Popen[str]]) -> None:
    """Uvicorn without a time-out for its shutdown ends although a stream is open, and the stream ends as one that is whole."""
    url, process = server
    with (
        httpx.Client(timeout=30, trust_env=False) as client,
        client.stream("GET", f"{url}/_cache/api/events") as stream,
    ):
        lines = stream.iter_lines()
        assert next(line for line in lines if line.startswith("event")) == "event: state"
        process.terminate()
        assert list(lines)[-3:-1] == ["event: renew", "data: {}"]
    assert process.wait(30) is not None
    assert process.stderr is not None
    said = process.stderr.read()
    assert "Application shutdown complete" in said
    assert "Error" not in said


def test_clients_that_vanish_are_forgotten(server: tuple[str, subprocess.Popen[str]]) -> None:
    """A client that closes its connection in the middle of a stream leaves its place to others, again and again."""
    url, process = server
    with httpx.Client(timeout=30, trust_env=False) as client:
        for _ in range(60):
            with client.stream("GET", f"{url}/_cache/api/events") as stream:
                if stream.status_code == 503:
                    continue
                assert next(stream.iter_lines()) == "retry: 1500"

        def room() -> bool:
            with client.stream("GET", f"{url}/_cache/api/events") as stream:
                return stream.status_code == 200

        until(room, "room for another page")
        assert client.get(f"{url}/items/1").status_code == 200
    process.terminate()
    assert process.wait(30) is not None
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
