"""Several processes that serve one app, each on a port of its own, as replicas do."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fastapi_cacheinval.testing.servers.child import Child
from fastapi_cacheinval.testing.servers.waiting import PATIENCE, until

__all__ = ["Fleet"]


class Fleet:
    """Processes by number, from 0, each on a port of 127.0.0.1 that it keeps over restarts.

    `command` gives what is run for a port, `answers` whether something there serves; the output goes into `directory`,
    and the processes run in `cwd`, which without one is there too. They find the modules that this process finds.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[int], Sequence[str]],
        answers: Callable[[int], bool],
        *,
        directory: Path,
        environment: Mapping[str, str],
        cwd: Path | None = None,
    ) -> None:
        self._name = name
        self._command = command
        self._answers = answers
        self._directory = directory
        self._environment = environment
        self._cwd = cwd
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

    def start_on(self, ports: Sequence[int]) -> None:
        """Start one more for each port, and wait until all answer."""
        for port in ports:
            self.ports.append(port)
            self.children.append(self._start(len(self.children), {}))
        for number in range(len(self.children)):
            self.wait_until_answering(number)

    def wait_until_answering(self, number: int, seconds: float = PATIENCE) -> None:
        """Wait until one answers; `AssertionError` with its output, at once when it has ended."""
        child = self.children[number]

        def answers() -> bool:
            if not child.alive:
                raise AssertionError(f"it ended before it answered: {child.tail(100)}")
            return self._answers(self.ports[number])

        until(answers, f"an answer from {child}", seconds=seconds, detail=child.tail)

    def close(self) -> None:
        """End all, together."""
        for child in self.children:
            child.ask_to_end()
        for child in self.children:
            child.terminate()

    def _start(self, number: int, more: Mapping[str, str]) -> Child:
        environment = {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(self._cwd or self._directory), *sys.path])),
            "PYTHONUNBUFFERED": "1",
            "WEB_CONCURRENCY": "1",
            **self._environment,
            **more,
        }
        command = self._command(self.ports[number])
        return Child(f"{self._name} {number}", command, self._directory, environment, cwd=self._cwd)
