"""A child process under test: its output kept, paused and ended by signals, never left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastapi_cacheinval.testing.servers import reaper
from fastapi_cacheinval.testing.servers.waiting import PATIENCE

__all__ = ["Child", "children"]

children: list[Child] = []
"""Those that run, and those that ended since somebody last took them out, for who shows their output."""


class Child:
    """A process in a group of its own, with its output in a file in `directory`, where it also runs without `cwd`.

    Signals go to the whole group, so that they reach workers that the process has started. The group is killed when
    this process is gone, however it went. It needs a POSIX system.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        directory: Path,
        environment: Mapping[str, str] | None = None,
        *,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self._output = directory / f"{name.replace(' ', '-')}.out"
        self._last_words: str | None = None
        with self._output.open("ab") as output:
            self._begin = output.tell()
            self._process = subprocess.Popen(
                list(command),
                cwd=cwd or directory,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        reaper.watch(self.pid)
        children.append(self)

    def __repr__(self) -> str:
        return f"<Child {self.name}, pid {self.pid}>"

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended; a paused one lives."""
        if self._process.poll() is None:
            return True
        self._bury()
        return False

    @property
    def status(self) -> int | None:
        """Its exit status, once it has ended; the negative signal number if one killed it."""
        return None if self.alive else self._process.returncode

    @property
    def output(self) -> str:
        """What it has written to standard output and error."""
        if self._last_words is not None:
            return self._last_words
        with self._output.open("rb") as file:
            file.seek(self._begin)
            return file.read().decode(errors="replace")

    def tail(self, lines: int = 15) -> str:
        """Its name and the last lines of its output."""
        return "\n".join([f"{self}:", *self.output.splitlines()[-lines:]])

    def pause(self) -> None:
        """Stop it in its tracks (SIGSTOP): its connections stay open, and the kernel goes on accepting for it."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once (SIGKILL), paused or not, and wait until it is gone."""
        self._end(signal.SIGKILL, PATIENCE)

    def ask_to_end(self) -> None:
        """Send SIGTERM, if it is there, and do not wait."""
        if self.alive:
            self._end_by(signal.SIGTERM)

    def terminate(self, seconds: float = PATIENCE) -> int:
        """Ask it to end (SIGTERM), kill it if it has not in so many seconds; gives its exit status."""
        return self._end(signal.SIGTERM, seconds)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait until it ends by itself; gives its exit status."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self} did not end within {seconds} s:\n{self.output}") from None
        self._bury()
        return self._process.returncode

    def _signal(self, number: signal.Signals) -> None:
        if not self.alive:
            raise AssertionError(f"{self} has ended:\n{self.output}")
        os.killpg(self.pid, number)

    def _end(self, number: signal.Signals, seconds: float) -> int:
        if self.alive:
            self._end_by(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
            self._process.kill()
            self._process.wait()
            self._bury()
        return self._process.returncode

    def _end_by(self, number: signal.Signals) -> None:
        # Not before wait() has been called is the number of a dead child given to others.
        os.killpg(self.pid, number)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGCONT)  # a paused one would not hear SIGTERM

    def _bury(self) -> None:
        if self._last_words is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)  # workers that it left behind
            reaper.forget(self.pid)
            self._last_words = self.output
