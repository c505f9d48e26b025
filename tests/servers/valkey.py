"""One Valkey server as a process of its own, with the faults that a test can put it to."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import redis

from fastapi_cacheinval.testing.servers.valkey import Server, Setting

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


class Valkey(Server):
    """A running server; make one with `valkey()`."""

    def __init__(self, directory: Path, config: Mapping[str, Setting], *, sentinel: bool = False) -> None:
        self._client: redis.Redis | None = None
        defaults: dict[str, Setting] = {"bind": "127.0.0.1"} if sentinel else _DEFAULTS
        super().__init__(directory, config, defaults=defaults, sentinel=sentinel)

    @property
    def pid(self) -> int:
        """The process id, another one after a restart."""
        return self.child.pid

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
        super().close()


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
