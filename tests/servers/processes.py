"""Several processes that serve one ASGI app, each on a port of its own, as replicas do."""

from __future__ import annotations

import contextlib
import http.client
import os
import sys
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Literal

from tests.servers.child import Child
from tests.servers.ports import free_port
from tests.servers.waiting import PATIENCE, until

ServerName = Literal["uvicorn", "hypercorn", "granian"]

_ROOT = Path(__file__).parents[2]
# One worker each. Hypercorn with none serves in the process itself; the others with one.
_OPTIONS: dict[ServerName, str] = {
    "uvicorn": "--host 127.0.0.1 --port {port} --timeout-graceful-shutdown 3",
    "hypercorn": "--bind 127.0.0.1:{port} --workers 0 --graceful-timeout 3",
    "granian": "--interface asgi --host 127.0.0.1 --port {port} --workers 1 --workers-kill-timeout 3",
}


class Processes:
    """Processes by number, from 0; make them with `processes()`."""

    def __init__(
        self,
        app: str,
        server: ServerName,
        options: tuple[str, ...],
        *,
        directory: Path,
        environment: Mapping[str, str],
        path: str,
    ) -> None:
        self._command = [sys.executable, "-m", server]
        self._app = app
        self._server: ServerName = server
        self._options = options
        self._directory = directory
        self._environment = environment
        self._path = path
        self.children: list[Child] = []
        self.ports: list[int] = []

    @property
    def urls(self) -> list[str]:
        """Where each listens, also while it is not there."""
        return [f"http://127.0.0.1:{port}" for port in self.ports]

    def outputs(self) -> str:
        """The end of what each has written, for a failure's message."""
        return "\n\n".join(child.tail() for child in self.children)

    def pause(self, number: int) -> None:
        """Stop one in its tracks (SIGSTOP), with its workers."""
        self.children[number].pause()

    def resume(self, number: int) -> None:
        """Let it go on after `pause`."""
        self.children[number].resume()

    def kill(self, number: int) -> None:
        """End one at once (SIGKILL), with its workers; nothing of it is shut down."""
        self.children[number].kill()

    def terminate(self, number: int) -> int:
        """Shut one down as a deployment does (SIGTERM); gives its exit status."""
        return self.children[number].terminate()

    def restart(self, number: int, **environment: str) -> None:
        """Shut one down, if it is still there, and start it on its port, other variables added to its environment."""
        self.terminate(number)
        self.children[number] = self._start(number, environment)
        self.wait_until_answering(number)

    def start(self, count: int) -> None:
        """Start so many more and wait until all answer."""
        for _ in range(count):
            self.ports.append(free_port())
            self.children.append(self._start(len(self.children), {}))
        for number in range(len(self.children)):
            self.wait_until_answering(number)

    def wait_until_answering(self, number: int, seconds: float = PATIENCE) -> None:
        """Wait until one answers a GET, with whatever status; fails at once when it has ended."""
        child = self.children[number]

        def answers() -> bool:
            assert child.alive, f"it ended before it answered: {child.tail(100)}"
            connection = http.client.HTTPConnection("127.0.0.1", self.ports[number], timeout=seconds)
            try:
                connection.request("GET", self._path)
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                return False
            finally:
                connection.close()
            return True

        until(answers, f"an answer from {child}", seconds=seconds, detail=child.tail)

    def close(self) -> None:
        """End all, together."""
        for child in self.children:
            child.ask_to_end()
        for child in self.children:
            child.terminate()

    def _start(self, number: int, more: Mapping[str, str]) -> Child:
        options = _OPTIONS[self._server].format(port=self.ports[number]).split()
        paths = [str(self._directory), str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONUNBUFFERED": "1",
            "WEB_CONCURRENCY": "1",
            **self._environment,
            **more,
        }
        command = [*self._command, *options, *self._options, self._app]
        return Child(f"{self._server} {number}", command, self._directory, environment)


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
            app, server, options, directory=directory or Path(scratch), environment=environment or {}, path=path
        )
        try:
            fleet.start(count)
            yield fleet
        finally:
            fleet.close()
