"""The protocol, named on the command line of uvicorn and in a worker of gunicorn."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from fastapi_cacheinval.testing.servers.fleet import Fleet
from fastapi_cacheinval.testing.servers.ports import free_port, listens

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "uvicorn": ["uvicorn", "tests.uvicorn.app:app", "--http", "tests.uvicorn.serving:Counting", "--port", "PORT"],
    "gunicorn": ["gunicorn", "tests.uvicorn.app:app", "-k", "tests.uvicorn.app.CacheWorker", "-b", "127.0.0.1:PORT"],
}


def _asked(url: str, times: int) -> str:
    said = ""
    for _ in range(times):
        with urlopen(url) as answer:
            said = answer.headers["cache-status"] or answer.read().decode()
    return said


@pytest.mark.parametrize("server", COMMANDS)
def test_a_server_that_is_told_the_protocol_answers_hits_in_it(server: str, tmp_path: Path) -> None:
    """An import string is enough."""
    fleet = Fleet(
        server,
        lambda port: [sys.executable, "-m", *(word.replace("PORT", str(port)) for word in COMMANDS[server])],
        listens,
        directory=tmp_path,
        environment={},
        cwd=ROOT,
    )
    try:
        fleet.start_on([free_port()])
        # urllib ends each connection, which the protocol leaves to the server: http.client does not.
        assert "hit" in _asked(f"{fleet.urls[0]}/items/1", 2)
        with socket.create_connection(("127.0.0.1", fleet.ports[0]), 5) as client:
            client.sendall(b"GET /items/1 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % fleet.ports[0])
            assert b"cacheinval; hit" in client.recv(65_536)
        assert int(_asked(f"{fleet.urls[0]}/answered", 1)) == 1
    finally:
        fleet.close()


def test_the_page_names_what_is_tested() -> None:
    """The command and the worker of the documentation name the protocol that is there."""
    page = (ROOT / "docs/uvicorn.md").read_text("utf-8")
    named = re.findall(r"fastapi_cacheinval\.uvicorn:(\w+)", page)
    assert named
    assert set(named) == {"CacheProtocol"}
