"""Several processes that serve one ASGI app under one of three servers."""

from __future__ import annotations

import contextlib
import http.client
import sys
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Literal

from fastapi_cacheinval.testing.servers.fleet import Fleet
from tests.servers.ports import free_port
from tests.servers.waiting import PATIENCE

ServerName = Literal["uvicorn", "hypercorn", "granian"]

# One worker each. Hypercorn with none serves in the process itself; the others with one.
_OPTIONS: dict[ServerName, str] = {
    "uvicorn": "--host 127.0.0.1 --port {port} --timeout-graceful-shutdown 3",
    "hypercorn": "--bind 127.0.0.1:{port} --workers 0 --graceful-timeout 3",
    "granian": "--interface asgi --host 127.0.0.1 --port {port} --workers 1 --workers-kill-timeout 3",
}


class Processes(Fleet):
    """Processes by number, from 0; make them with `processes()`."""

    def start(self, count: int) -> None:
        """Start so many more and wait until all answer."""
        self.start_on([free_port() for _ in range(count)])


def _gets(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


@contextlib.contextmanager
def processes(
    app: str,
    count: int = 2,
    *,
    server: ServerName = "uvicorn",
    options: tuple[str, ...] = (),
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
    path: str = "/",
) -> Generator[Processes]:
    """So many processes of `module:app`, answering; shut down with the block.

    The module is looked for in `directory`, then in this project. `path` is what is asked for to learn whether a
    process answers.
    """
    with tempfile.TemporaryDirectory(prefix="processes-") as scratch:
        fleet = Processes(
            server,
            lambda port: [sys.executable, "-m", server, *_OPTIONS[server].format(port=port).split(), *options, app],
            lambda port: _gets(port, path),
            directory=directory or Path(scratch),
            environment=environment or {},
        )
        try:
            fleet.start(count)
            yield fleet
        finally:
            fleet.close()
