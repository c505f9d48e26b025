"""`HTTPCache`: one cache in one process, as its users see it; what it is made of is `engine/internals.py`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from contextvars import copy_context
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self, Unpack

from fastapi_cacheinval.connections.urls import Connect, by_client, by_url
from fastapi_cacheinval.core.checks import Wait, flag, flag_of_environment, refuse_to_set
from fastapi_cacheinval.core.events import Receipt
from fastapi_cacheinval.core.tags import ALL, path_tag
from fastapi_cacheinval.engine.environment import settings_of_environment
from fastapi_cacheinval.engine.internals import Internals
from fastapi_cacheinval.engine.of_routes import OfRoutes
from fastapi_cacheinval.engine.of_watchers import OfWatchers
from fastapi_cacheinval.engine.settings import Options, Settings, misplaced
from fastapi_cacheinval.errors import ConfigurationError
from fastapi_cacheinval.ports.clock import Clock
from fastapi_cacheinval.telemetry.context import carried

__all__ = ["HTTPCache", "internals_of"]

_ENVIRONMENT = "CACHEINVAL_ENABLED"


class HTTPCache(OfRoutes, OfWatchers):
    """A response cache: everything is kept in this process.

    Durations are seconds or `timedelta`, sizes are bytes; see `Settings` for the names and the
    defaults. `clock` is for tests. `enabled=False`, or `CACHEINVAL_ENABLED=0` in the environment,
    forwards every request and still publishes every purge; so does setting `enabled` at run time.
    Nothing else can be set later.

    Raises `ConfigurationError` for a setting that cannot work.
    """

    _core: Internals
    _parts: ClassVar[type[Internals]] = Internals
    # How its settings reach a server, while it is made; None where everything stays in this process.
    _way: Callable[[Settings], Connect | None] | None = None

    # -- make -----------------------------------------------------------------------------------

    if not TYPE_CHECKING:
        # Type checkers refuse it by the signature of `__init__`.
        def __new__(cls, *given: object, **_options: object) -> Self:
            """Refuse what belongs elsewhere."""
            if given:
                raise misplaced(given[0])
            return super().__new__(cls)

    def __init__(self, *, clock: Clock | None = None, enabled: bool = True, **options: Unpack[Options]) -> None:
        settings = Settings.of(options)
        connect = None if self._way is None else self._way(settings)
        allowed = flag_of_environment(os.environ.get(_ENVIRONMENT), _ENVIRONMENT, default=True)
        on = flag(enabled, "enabled") and allowed
        object.__setattr__(self, "_core", self._parts(settings, clock, connect, enabled=on))

    @classmethod
    def from_url(
        cls, url: str, *, clock: Clock | None = None, enabled: bool = True, **options: Unpack[Options]
    ) -> HTTPCache:
        """A cache by URL, shared with every replica that names the same server, namespace and version.

        `memory://` keeps everything in this process; `redis://`, `rediss://`, `valkey://`, `unix://`,
        `redis+cluster://host:port,host:port` and `redis+sentinel://host:port,host:port/service/db` name a Redis or
        Valkey. User and password in a Sentinel URL are the servers'; options that begin with `sentinel_` are the
        Sentinels'. It need not be there yet. Raises `ConfigurationError` for anything else.
        """
        return cls._by(lambda settings: _way_to(url, settings), clock=clock, enabled=enabled, **options)

    @classmethod
    def from_client(
        cls, client: Any, *, clock: Clock | None = None, enabled: bool = True, **options: Unpack[Options]
    ) -> HTTPCache:
        """A cache over the settings of a `redis.asyncio` client of yours, Sentinel's and Cluster's included.

        The cache makes clients like it, one for each event loop that it is used on, and closes those. Yours is neither
        used nor closed. Timeouts and retries are the cache's, and the size of a pool counts for each client. Raises
        `ConfigurationError` for anything else, and for one with `decode_responses=True`.
        """
        return cls._by(lambda settings: by_client(client, *settings.of_calls), clock=clock, enabled=enabled, **options)

    @classmethod
    def from_env(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        clock: Clock | None = None,
        enabled: bool = True,
        **options: Unpack[Options],
    ) -> HTTPCache:
        """A cache by environment variables: `CACHEINVAL_URL`, and `CACHEINVAL_` with a setting's name in upper case.

        Without a URL everything is kept in this process. `options` are the app's own; a variable that is set wins.
        Raises one `ConfigurationError` that names every variable that is unknown or cannot work.
        """
        if "url" in options or isinstance(environ, str):
            raise ConfigurationError(
                "HTTPCache.from_env() reads the URL from the variable CACHEINVAL_URL: set that, or write "
                "HTTPCache.from_url(...)."
            )
        url, found = settings_of_environment(os.environ if environ is None else environ, _way_to)
        both: Any = {**options, **found}
        return cls.from_url(url, clock=clock, enabled=enabled, **both)

    @classmethod
    def _by(cls, way: Callable[[Settings], Connect | None], /, **given: Any) -> HTTPCache:
        """As a call of the class makes it: the `__init__` of a subclass knows of no `way`, and may change settings."""
        cache: HTTPCache = cls.__new__(cls, **given)
        object.__setattr__(cache, "_way", way)
        cls.__init__(cache, **given)
        object.__delattr__(cache, "_way")
        return cache

    def __setattr__(self, name: str, value: object) -> None:
        if name == "enabled":
            object.__setattr__(self, name, value)
            return
        known = {each for each in (*dir(type(self)), *Options.__annotations__) if not each.startswith("_")}
        method = callable(getattr(type(self), name, None))
        refuse_to_set(name, known, method=method, anything=type(self) is HTTPCache)
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        on = "on" if self.enabled else "off"
        return f"<HTTPCache {self.settings.namespace!r} {on} {self._core.engine.replica!r}>"

    @property
    def settings(self) -> Settings:
        """The settings that it was made with; frozen."""
        return self._core.settings

    @property
    def clock(self) -> Clock:
        """The clock that it was made with."""
        return self._core.clock

    @property
    def enabled(self) -> bool:
        """Whether it answers requests; it may be set at run time, to `True` or `False`."""
        return self._core.enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._core.enabled = flag(value, "enabled")

    # -- run ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start on the running loop; a second call there changes nothing.

        Background work runs in a copy of the caller's context. Raises what an attached source raises.
        """
        await self._core.started(copy_context())

    async def stop(self) -> None:
        """End on the running loop: refreshes are cancelled, purges under way get one last while."""
        await self._core.lifecycle.stop()

    async def __aenter__(self) -> Self:
        await self._core.lifecycle.enter(copy_context())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._core.lifecycle.leave()

    @property
    def running(self) -> bool:
        """Whether it has been started on the running loop."""
        return self._core.running

    @property
    def loops(self) -> tuple[asyncio.AbstractEventLoop, ...]:
        """The event loops, of any thread, on which it has been started."""
        return tuple(self._core.runtimes)

    def attach(self, source: AbstractAsyncContextManager[Any]) -> None:
        """Tie an async context manager to the cache's life: entered at start, left at stop, named in `statistics()`.

        A cache that is started again enters it again. Raises `ConfigurationError` after the start.
        """
        self._core.sources.attach(source)

    # -- purge ----------------------------------------------------------------------------------

    async def invalidate(
        self, *tags: str, soft: bool = False, wait: Wait = None, causes: Iterable[Mapping[str, str]] = ()
    ) -> Receipt:
        """Purge every stored response that carries one of the tags; a soft purge makes them stale.

        It has its number, and this replica obeys it, when the call returns. Tags may carry a client's data: they are
        normalised and never raise. Without any tag left nothing is purged, but the receipt still has the log's last
        number. Up to 100,000 tags and 4 MiB of them are one purge, in as many lines of the log as it takes; more purge
        everything, and the receipt says so. `wait="all"` also waits for every replica; one that is out of touch is not
        waited for, and keeps to `staleness_bound`. `causes` are the W3C Trace Context fields (`traceparent`,
        `tracestate`) of what led to it elsewhere: its span links to them.
        """
        flag(soft, "soft")
        core = self._core
        return await core.purger.purge(await core.named(tags), soft=soft, wait=wait, causes=carried(causes))

    async def invalidate_url(self, path: str, *, soft: bool = False, wait: Wait = None) -> Receipt:
        """Purge what is stored of a path or URL: all queries, variants and hosts; a query or host in it is ignored.

        Percent-encoded or decoded; with or without the root path that the app is served under, so that
        `str(request.url_for(...))` will do. A process without the app, such as a worker, does not know the root path:
        of a whole URL it purges every path that may be below one, and of a path that path alone, so give it without
        the root path there. It may carry a client's data and never raises.
        """
        flag(soft, "soft")
        tags = tuple(map(path_tag, self._core.root_paths.paths_of(path)))
        return await self._core.purger.purge(tags, soft=soft, wait=wait)

    async def clear(self, *, soft: bool = False, wait: Wait = None) -> Receipt:
        """Purge everything that is stored under this namespace, of whatever version, and nothing else."""
        flag(soft, "soft")
        return await self._core.purger.purge((ALL,), soft=soft, wait=wait)

    def invalidate_sync(
        self, *tags: str, soft: bool = False, everything: bool = False, timeout: float = 5.0, wait: Wait = None
    ) -> Receipt:
        """`invalidate`, or `clear` for `everything`, for plain functions and threads.

        The event loop may wait for the thread meanwhile. Raises `CacheNotRunning` on the loop's own thread. `timeout`
        is seconds to wait for its number, and with `wait="all"` for every replica; `TimeoutError` past it, and the
        purge goes on.
        """
        flag(soft, "soft")
        if flag(everything, "everything"):
            return self._core.purger.in_thread(lambda: self.clear(soft=soft, wait=wait), timeout)
        return self._core.purger.in_thread(lambda: self.invalidate(*tags, soft=soft, wait=wait), timeout)

    def invalidate_soon(self, *tags: str, soft: bool = False, everything: bool = False) -> None:
        """`invalidate`, or `clear` for `everything`, for plain functions on the event loop's own thread.

        This replica obeys the purge when the call returns; a background task writes it to the log. If the log is out
        of reach, the purge is logged and queued. Raises `CacheNotRunning` where the cache has not been started on the
        running loop.
        """
        flag(soft, "soft")
        self._core.purge_soon(tags, soft=soft, everything=flag(everything, "everything"))

    async def deliver(
        self,
        *tags: str,
        soft: bool = False,
        everything: bool = False,
        causes: Iterable[Mapping[str, str]] = (),
    ) -> Receipt:
        """`invalidate`, or `clear` for `everything`, that returns only once the purge has its number, however long.

        For event consumers: acknowledge the event, commit the offset or delete the message after it. Raises
        `CacheNotRunning` where the cache has not been started on this loop, or stops meanwhile.
        """
        flag(soft, "soft")
        named = await self._core.named(tags, everything=flag(everything, "everything"))
        return await self._core.purger.deliver(named, soft=soft, causes=carried(causes))

    async def applied_everywhere(self, receipt: Receipt) -> Receipt:
        """Wait until every replica in touch has applied a purge; its receipt, with `replicas` and `seconds`.

        Raises `ReplicasUnknown` where that cannot be found out; what depends on it waits for `staleness_bound` then.
        """
        return await self._core.purger.applied_everywhere(receipt)

    def expect_changes(self) -> None:
        """Have the answers of mutations wait for what their dependencies commit late, whatever their routes declare.

        For integrations that call `purge_with_request` and learn only at the commit what has changed.
        """
        self._core.expects_changes = True

    def expect_waiting(self) -> None:
        """Have each purge made here ask every replica to say at once that it has applied it, not at its next heartbeat.

        For integrations that call `applied_everywhere` after every purge. Costs each replica one more call to the log
        per purge.
        """
        self._core.purger.prompt = True


def internals_of(cache: HTTPCache) -> Internals:
    """What a cache is made of, for the middleware; users have no need of it."""
    return cache._core  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - the one way in


def _way_to(url: str, settings: Settings | None = None) -> Connect | None:
    """How to reach the server that a URL names, by the defaults without `settings`; None for `memory://`."""
    if str(url).partition("://")[0] == "memory":
        return None
    return by_url(url, *(settings or Settings()).of_calls)
