"""Calling `cacheinval` in this process, and as a process of its own on a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from click.testing import CliRunner

from fastapi_cacheinval.cli.commands import cacheinval
from tests.servers import PATIENCE

__all__ = ["BARE", "ROOT", "Called", "Terminal", "called"]

ROOT = Path(__file__).resolve().parents[2]
# What a process of its own has of the surroundings: where programs and modules are.
BARE = {
    "PATH": os.environ["PATH"],
    "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", "")))),
}
_ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@dataclass(frozen=True)
class Called:
    """What a call has written, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its output as one JSON value."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """Its output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


def called(*arguments: str, env: Mapping[str, str] | None = None, stdin: str | bytes | None = None) -> Called:
    """One call; fails where it ends by an exception that nobody meant."""
    result = CliRunner().invoke(cacheinval, list(arguments), env=dict(env or {}), input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Called(result.exit_code, result.stdout, result.stderr)


class Terminal:
    """`cacheinval` as a process whose standard streams are a terminal of so many columns, while the block runs."""

    def __init__(self, *arguments: str, columns: int = 80, env: Mapping[str, str] | None = None) -> None:
        self._arguments = arguments
        self._columns = columns
        self._env = {**BARE, "TERM": "xterm-256color", **(env or {})}
        self.raw = ""
        self.code: int | None = None

    def __enter__(self) -> Self:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, self._columns, 0, 0))
        self._child = subprocess.Popen(
            [sys.executable, "-m", "fastapi_cacheinval.cli", *self._arguments],
            stdin=slave, stdout=slave, stderr=slave, env=self._env, start_new_session=True, close_fds=True,
        )  # fmt: skip
        os.close(slave)
        return self

    def __exit__(self, *_: object) -> None:
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait()
        os.close(self._master)

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], seconds)
        if not ready:
            return True
        try:
            data = os.read(self._master, 65_536)
        except OSError:  # the other end is closed
            return False
        self.raw += data.decode("utf-8", "replace")
        return bool(data)

    def until(self, condition: Callable[[Terminal], object], what: str) -> None:
        """Read until a condition holds."""
        deadline = time.monotonic() + 2 * PATIENCE
        while not condition(self):
            assert time.monotonic() < deadline, f"{what} did not come:\n{self.raw}"
            assert self._read(0.1) or condition(self), f"it ended before {what} came:\n{self.raw}"

    def shows(self, text: str) -> None:
        """Read until a text is there."""
        self.until(lambda terminal: text in terminal.text, repr(text))

    def write(self, text: str) -> None:
        """Type it."""
        os.write(self._master, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C, once the process waits: Python misses one between its last look for signals and the call that waits."""
        status = Path(f"/proc/{self._child.pid}/stat")
        deadline = time.monotonic() + PATIENCE
        while status.exists() and status.read_text().rpartition(") ")[2][0] != "S":
            assert time.monotonic() < deadline, f"it never waits:\n{self.raw}"
        self._child.send_signal(signal.SIGINT)

    def end(self) -> int:
        """Read all until it ends; its exit code."""
        deadline = time.monotonic() + 2 * PATIENCE
        while self._read(0.1):
            assert time.monotonic() < deadline, f"it does not end:\n{self.raw}"
            if self._child.poll() is not None and not select.select([self._master], [], [], 0)[0]:
                break
        self.code = self._child.wait(PATIENCE)
        return self.code

    @property
    def text(self) -> str:
        """What was written, without colours and moves of the cursor."""
        return _ANSI.sub("", self.raw).replace("\r\n", "\n").replace("\r", "\n")
