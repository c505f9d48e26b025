"""`HTTPCache`: one cache in one process, its settings, its life, and invalidation by hand."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any, Literal, Self, Unpack
from urllib.parse import urlsplit

from fastapi_cacheinval.bus.local import LocalBus
from fastapi_cacheinval.core.outcome import Result
from fastapi_cacheinval.core.receipt import Receipt
from fastapi_cacheinval.core.replica import Line, Replica
from fastapi_cacheinval.core.statistics import Statistics
from fastapi_cacheinval.core.tags import ALL, is_reserved, normalise_tags, path_tag, url_paths
from fastapi_cacheinval.engine.clocks import SystemClock
from fastapi_cacheinval.engine.engine import Engine
from fastapi_cacheinval.engine.runtime import Runtime
from fastapi_cacheinval.engine.settings import Options, Settings
from fastapi_cacheinval.engine.workers import warn_of_other_workers
from fastapi_cacheinval.errors import CacheNotRunning, ConfigurationError
from fastapi_cacheinval.ports.clock import Clock
from fastapi_cacheinval.stores.memory import MemoryStore
from fastapi_cacheinval.telemetry.counters import Counters

__all__ = ["HTTPCache", "Listener"]

logger = logging.getLogger("fastapi_cacheinval.cache")

Listener = Callable[[Receipt], Awaitable[None]]
Wait = Literal["all"] | None

_OFF = frozenset({"0", "false", "no", "off"})


def _enabled_by_environment() -> bool:
    return os.environ.get("CACHEINVAL_ENABLED", "1").strip().lower() not in _OFF


class HTTPCache:
    """A response cache: everything is kept in this process.

    Durations are seconds or `timedelta`, sizes are bytes; see `Settings` for the names and the
    defaults. `clock` is for tests. `enabled=False`, or `CACHEINVAL_ENABLED=0` in the environment,
    forwards every request and still publishes every purge; so does setting `enabled` at run time.

    Raises `ConfigurationError` for a setting that cannot work.
    """

    def __init__(self, *, clock: Clock | None = None, enabled: bool = True, **options: Unpack[Options]) -> None:
        self.settings = Settings.of(options)
        self.enabled = enabled and _enabled_by_environment()
        self.clock: Clock = SystemClock() if clock is None else clock
        self.counters = Counters()
        self._secret = self.settings.secret
        self._bus = LocalBus(self.clock.now)
        replica = Replica(
            staleness_bound=self.settings.staleness_bound,
            stale_when_disconnected=self.settings.stale_when_disconnected,
        )
        self.engine = Engine(self.settings, self.clock, MemoryStore(self.settings.l1_max_bytes), replica)
        # One for each event loop that it has been started on; the middleware looks here on every forward.
        self.runtimes: dict[asyncio.AbstractEventLoop, Runtime] = {}
        self._listeners: list[Listener] = []
        self._observers: list[Callable[[Receipt], object]] = []
        self._sources: list[AbstractAsyncContextManager[Any]] = []
        self._attached: tuple[asyncio.AbstractEventLoop, AsyncExitStack] | None = None
        self._looked_around = False

    @classmethod
    def from_url(
        cls, url: str, *, clock: Clock | None = None, enabled: bool = True, **options: Unpack[Options]
    ) -> HTTPCache:
        """A cache by URL; `memory://` keeps everything in this process. `ConfigurationError` for other schemes."""
        scheme = urlsplit(url).scheme
        if scheme == "memory":
            return cls(clock=clock, enabled=enabled, **options)
        raise ConfigurationError(
            f"HTTPCache.from_url takes memory://, not {scheme + '://' if scheme else repr(url)}: this release keeps "
            "everything in one process. Write HTTPCache() or HTTPCache.from_url('memory://')."
        )

    def __repr__(self) -> str:
        return f"<HTTPCache {self.settings.namespace!r} {'on' if self.enabled else 'off'} {self.engine.replica!r}>"

    # -- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start on the running loop; a second call there changes nothing.

        Background work runs in a copy of the caller's context. Raises what an attached source raises.
        """
        (await self._started(copy_context())).pinned = True

    async def _started(self, context: Context) -> Runtime:
        if self._opened(context):
            await self._begin()
        return self.runtime

    async def _begin(self) -> None:
        await self._bus.start(self.engine.replica)
        if not self._looked_around:
            self._looked_around = True
            warn_of_other_workers()
        try:
            await self._enter_sources()
        except BaseException:
            self.runtimes.pop(asyncio.get_running_loop(), None)
            raise

    def _opened(self, context: Context) -> bool:
        loop = asyncio.get_running_loop()
        if loop in self.runtimes:
            return False
        # Other threads may start and stop on their own loops meanwhile.
        for other in list(self.runtimes):
            if other.is_closed():
                self.runtimes.pop(other, None)
        if self._secret is None:
            # Made at start, not in __init__: processes forked after it must not share it.
            self._secret = secrets.token_bytes(32)
        self.runtimes[loop] = Runtime(
            self.clock,
            context,
            collapse_timeout=self.settings.collapse_timeout,
            most_refreshes=self.settings.max_refreshes,
            refresh_timeout=self.settings.refresh_timeout,
        )
        return True

    async def _enter_sources(self) -> None:
        loop = asyncio.get_running_loop()
        # They live on one loop; one that was closed under them has taken them along.
        if self._attached is not None and not self._attached[0].is_closed():
            return
        async with AsyncExitStack() as entering:
            self._attached = (loop, entering)
            try:
                for source in self._sources:
                    await entering.enter_async_context(source)
            except BaseException:
                self._attached = None
                raise
            self._attached = (loop, entering.pop_all())

    async def stop(self) -> None:
        """End on the running loop: refreshes are cancelled, purges under way get one last while."""
        loop = asyncio.get_running_loop()
        runtime = self.runtimes.pop(loop, None)
        if runtime is None:
            return
        undone = await runtime.close(self.settings.staleness_bound)
        if undone:
            logger.error("stopped with %d purge(s) or listener(s) unfinished", undone)
        if self._attached is not None and self._attached[0] is loop:
            (_, attached), self._attached = self._attached, None
            await attached.aclose()
        await self._bus.stop()

    async def __aenter__(self) -> Self:
        (await self._started(copy_context())).users += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        runtime = self.runtimes.get(asyncio.get_running_loop())
        if runtime is not None:
            runtime.users -= 1
            # A block inside an app that runs must not take the cache from under it.
            if runtime.users <= 0 and not runtime.pinned:
                await self.stop()

    @property
    def runtime(self) -> Runtime:
        """The loop-bound half for the running loop; raises `CacheNotRunning` where there is none."""
        runtime = self.runtimes.get(asyncio.get_running_loop())
        if runtime is None:
            raise CacheNotRunning(
                "The cache has not been started on this event loop: use `async with cache:` or the middleware."
            )
        return runtime

    @property
    def running(self) -> bool:
        """Whether it has been started on the running loop."""
        return asyncio.get_running_loop() in self.runtimes

    async def started(self) -> Runtime:
        """The loop-bound half for the running loop, started where it is not: by a request, whose context is its own."""
        runtime = await self._started(Context())
        runtime.pinned = True
        return runtime

    @property
    def secret(self) -> bytes:
        """The key of partition digests; made at start where none was given."""
        secret = self._secret
        if secret is None:
            raise CacheNotRunning("The cache has not been started: it has no secret yet.")
        return secret.encode() if isinstance(secret, str) else secret

    def attach(self, source: AbstractAsyncContextManager[Any]) -> None:
        """Tie an async context manager to the cache's life: entered at start, left at stop, named in `statistics()`.

        A cache that is started again enters it again. Raises `ConfigurationError` after the start.
        """
        if self._attached is not None:
            raise ConfigurationError("attach() comes before the start of the cache.")
        self._sources.append(source)

    def add_listener(self, listener: Listener) -> None:
        """Have an async function hear every purge made on this replica, once it has its number."""
        self._listeners.append(listener)

    def remove_listener(self, listener: Listener) -> None:
        """Take a listener off again; harmless when it is not on."""
        with contextlib.suppress(ValueError):
            self._listeners.remove(listener)

    def add_observer(self, observer: Callable[[Receipt], object]) -> None:
        """Have a plain function hear every purge made on this replica, before the purge returns; it must not raise."""
        self._observers.append(observer)

    def remove_observer(self, observer: Callable[[Receipt], object]) -> None:
        """Take an observer off again; harmless when it is not on."""
        with contextlib.suppress(ValueError):
            self._observers.remove(observer)

    # -- invalidation ---------------------------------------------------------------------------

    async def invalidate(self, *tags: str, soft: bool = False, wait: Wait = None) -> Receipt:
        """Purge every stored response that carries one of the tags; a soft purge makes them stale.

        It has its number, and this replica obeys it, when the call returns. Tags may carry a
        client's data: they are normalised and never raise; without any tag left nothing is purged
        but the receipt still has the log's last number. `wait="all"` also waits for every replica.
        """
        named = normalise_tags(tags)
        self.counters.dropped_tags += sum(not tag for tag in tags)
        return await self.purge(named, soft=soft, wait=wait)

    async def invalidate_url(self, path: str, *, soft: bool = False, wait: Wait = None) -> Receipt:
        """Purge what is stored of a path: all queries, variants and hosts; a query or host in it is ignored.

        Percent-encoded or decoded; without the root path that the app is served under. It may carry
        a client's data and never raises.
        """
        return await self.purge(tuple(map(path_tag, url_paths(path))), soft=soft, wait=wait)

    async def clear(self, *, soft: bool = False, wait: Wait = None) -> Receipt:
        """Purge everything that is stored under this namespace and version, and nothing else."""
        return await self.purge((ALL,), soft=soft, wait=wait)

    def invalidate_sync(self, *tags: str, soft: bool = False, timeout: float = 5.0) -> Receipt:
        """`invalidate` for plain functions and threads; raises `CacheNotRunning` on the loop's own thread.

        `timeout` is seconds to wait for its number; `TimeoutError` past it, and the purge goes on.
        """
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            raise CacheNotRunning("invalidate_sync() would block the event loop: await cache.invalidate() there.")
        loops = [loop for loop in list(self.runtimes) if loop.is_running()]
        if not loops:
            return asyncio.run(self.invalidate(*tags, soft=soft))
        return asyncio.run_coroutine_threadsafe(self.invalidate(*tags, soft=soft), loops[0]).result(timeout)

    async def purge(self, tags: tuple[str, ...], *, soft: bool, wait: Wait = None) -> Receipt:
        """Write one purge of tags in normal form, reserved ones included, and tell the listeners."""
        if wait not in (None, "all"):
            raise ConfigurationError(f'wait is None or "all", not {wait!r}.')
        began = self.clock.now()
        if not tags:
            replica = self.engine.replica
            return Receipt(replica.term.number, replica.applied, (), soft)
        if not self.running:
            await self._bus.start(self.engine.replica)
        line = await self._bus.publish(tags, soft=soft)
        self.counters.purged("published", len(tags), soft=soft)
        receipt = self._receipt(line)
        if wait == "all":
            # The one replica of this process applied it when it was numbered.
            receipt = self._receipt(line, replicas=1, seconds=self.clock.now() - began)
        await self._tell(receipt)
        return receipt

    def _receipt(self, line: Line, replicas: int | None = None, seconds: float | None = None) -> Receipt:
        return Receipt(
            term=line.term.number,
            seq=line.seq,
            tags=tuple(tag for tag in line.tags if not is_reserved(tag)),
            soft=line.soft,
            paths=tuple(tag[len(path_tag("")) :] for tag in line.tags if tag.startswith(path_tag(""))),
            everything=ALL in line.tags,
            replicas=replicas,
            seconds=seconds,
        )

    async def _tell(self, receipt: Receipt) -> None:
        for observer in tuple(self._observers):
            observer(receipt)
        listeners = tuple(self._listeners)
        if not listeners:
            return
        if self.running:
            self.runtime.own(_tell(listeners, receipt))
        else:
            # Nothing here would wait for a task.
            await _tell(listeners, receipt)

    # -- what it reports ------------------------------------------------------------------------

    def statistics(self) -> Statistics:
        """A snapshot: what is kept, what was answered, and how the replica stands to the log."""
        store, counters, replica = self.engine.store.statistics(), self.counters, self.engine.replica
        results = counters.results
        runtimes = list(self.runtimes.values())
        return Statistics(
            enabled=self.enabled,
            responses=store.responses,
            aliases=store.aliases,
            size_bytes=store.size_bytes,
            max_bytes=store.max_bytes,
            evicted=store.evicted_for_room,
            reclaimed=store.reclaimed,
            hits=counters.hits + results[Result.HIT],
            stale=results[Result.STALE],
            misses=results[Result.MISS],
            collapsed=results[Result.COLLAPSED],
            bypassed=results[Result.BYPASS],
            fills=dict(counters.fills),
            refused=dict(counters.details),
            refreshes=dict(counters.refreshes),
            purges=dict(counters.purges),
            dropped_tags=counters.dropped_tags,
            forwards_under_way=sum(len(runtime.flights) for runtime in runtimes),
            refreshing=sum(runtime.refreshing for runtime in runtimes),
            term=replica.term.number,
            applied=replica.applied,
            generation=replica.generation,
            lease_remaining=replica.lease_until - self.clock.now(),
            queue_length=0,
            sources={f"{type(source).__name__}-{index}": source for index, source in enumerate(self._sources)},
        )


async def _tell(listeners: Iterable[Listener], receipt: Receipt) -> None:
    for listener in listeners:
        try:
            await listener(receipt)
        except Exception:
            logger.exception("a purge listener failed: %r", listener)
