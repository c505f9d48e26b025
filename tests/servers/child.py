"""A child process under test: its output kept, stopped and continued by signals, never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.servers import reaper
from tests.servers.waiting import PATIENCE

# What runs, or ran while the current test did; the pytest plugin shows their output when a test fails.
children: list[Child] = []


class Child:
    """A process with its output in a file; it is killed when this process goes, however it goes."""

    def __init__(
        self, name: str, command: Sequence[str], directory: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._output = directory / f"{name.replace(' ', '-')}.out"
        with self._output.open("ab") as output:
            self._seen = output.tell()
            self._process = subprocess.Popen(
                list(command),
                cwd=directory,
                env=None if environment is None else {**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        reaper.watch(self.pid)
        self.last_words = ""
        children.append(self)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended; a paused one lives."""
        return self._process.poll() is None

    @property
    def output(self) -> str:
        """What it has written to standard output and error."""
        if self.last_words:
            return self.last_words
        with self._output.open("rb") as file:
            file.seek(self._seen)
            return file.read().decode(errors="replace")

    def pause(self) -> None:
        """Stop it in its tracks (SIGSTOP): its sockets stay open, and the kernel still accepts for it."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it at once (SIGKILL), paused or not, and wait until it is gone."""
        self._end(signal.SIGKILL)

    def stop(self, seconds: float = PATIENCE) -> int:
        """Ask it to end (SIGTERM), kill it when it does not in so many seconds; gives its exit status."""
        return self._end(signal.SIGTERM, seconds)

    def _end(self, how: signal.Signals, seconds: float = PATIENCE) -> int:
        if self.alive:
            self._process.send_signal(how)
            self._process.send_signal(signal.SIGCONT)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
        status = self._process.wait()
        if not self.last_words:
            reaper.forget(self.pid)
            self.last_words = self.output or "(no output)"
        return status
