"""`HTTPCache`: one cache in one process, its settings, its life, and invalidation by hand."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from contextvars import Context, copy_context
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal, Self, Unpack

from fastapi_cacheinval.bus.local import LocalBus
from fastapi_cacheinval.connections.urls import Connect, by_client, by_url
from fastapi_cacheinval.core.receipt import Receipt, receipt_of
from fastapi_cacheinval.core.replica import LogEntry, Replica
from fastapi_cacheinval.core.statistics import Statistics
from fastapi_cacheinval.core.tags import ALL, normalise_tags, path_tag, url_paths
from fastapi_cacheinval.core.token import Token
from fastapi_cacheinval.engine.clocks import SystemClock, paused
from fastapi_cacheinval.engine.engine import Engine
from fastapi_cacheinval.engine.listeners import Listener, Listeners, Observer
from fastapi_cacheinval.engine.reporting import report
from fastapi_cacheinval.engine.runtime import Runtime
from fastapi_cacheinval.engine.settings import Options, Settings
from fastapi_cacheinval.engine.sources import Sources
from fastapi_cacheinval.engine.tiers import SharedTiers
from fastapi_cacheinval.engine.workers import warn_of_other_workers
from fastapi_cacheinval.errors import CacheNotRunning, ConfigurationError, PurgeNotDelivered
from fastapi_cacheinval.ports.bus import Bus
from fastapi_cacheinval.ports.clock import Clock
from fastapi_cacheinval.ports.log import Proposal
from fastapi_cacheinval.ports.tracing import Carrier
from fastapi_cacheinval.stores.memory import MemoryStore
from fastapi_cacheinval.telemetry.context import carried
from fastapi_cacheinval.telemetry.counters import Counters
from fastapi_cacheinval.telemetry.reporting import join
from fastapi_cacheinval.telemetry.tracing import Spans

__all__ = ["HTTPCache", "Listener"]

logger = logging.getLogger("fastapi_cacheinval.cache")

Wait = Literal["all"] | None

_LOOK_AGAIN = 0.05

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
        self.tracing = Spans()
        self._secret = self.settings.secret
        replica = Replica(
            staleness_bound=self.settings.staleness_bound,
            stale_when_disconnected=self.settings.stale_when_disconnected,
        )
        self.engine = Engine(self.settings, self.clock, MemoryStore(self.settings.l1_max_bytes), replica)
        self._tiers: SharedTiers | None = None
        self._bus: Bus = LocalBus(self.clock.now)
        # One for each event loop that it has been started on; the middleware looks here on every forward.
        self.runtimes: dict[asyncio.AbstractEventLoop, Runtime] = {}
        self._announcer = Listeners()
        self._sources = Sources()
        self._looked_around = False
        self._last_words: list[asyncio.Future[None]] = []
        # Whether mutations tell by themselves what they change: see `expect_changes`.
        self.expects_changes = False
        # Whether purges are acknowledged by each replica at once: see `expect_waiting`.
        self._expects_waiting = False

    @classmethod
    def from_url(
        cls, url: str, *, clock: Clock | None = None, enabled: bool = True, **options: Unpack[Options]
    ) -> HTTPCache:
        """A cache by URL, shared with every replica that names the same server, namespace and version.

        `memory://` keeps everything in this process; `redis://`, `rediss://`, `valkey://`, `unix://`,
        `redis+cluster://host:port,host:port` and `redis+sentinel://host:port,host:port/service/db` name a Redis or
        Valkey. It need not be there yet. Raises `ConfigurationError` for anything else.
        """
        cache = cls(clock=clock, enabled=enabled, **options)
        if str(url).partition("://")[0] != "memory":
            cache._share(by_url(url, cache.settings.call_timeout))
        return cache

    @classmethod
    def from_client(
        cls, client: Any, *, clock: Clock | None = None, enabled: bool = True, **options: Unpack[Options]
    ) -> HTTPCache:
        """A cache over the settings of a `redis.asyncio` client of yours, Sentinel's and Cluster's included.

        The cache makes clients like it, one for each event loop that it is used on, and closes those. Yours is neither
        used nor closed. Raises `ConfigurationError` for anything else, and for one with `decode_responses=True`.
        """
        cache = cls(clock=clock, enabled=enabled, **options)
        cache._share(by_client(client, cache.settings.call_timeout))
        return cache

    def _share(self, connect: Connect) -> None:
        self._tiers = SharedTiers(self.settings, connect)
        self._bus = self._tiers.bus(self.engine.replica, self, self.clock)

    def __repr__(self) -> str:
        return f"<HTTPCache {self.settings.namespace!r} {'on' if self.enabled else 'off'} {self.engine.replica!r}>"

    # -- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start on the running loop; a second call there changes nothing.

        Background work runs in a copy of the caller's context. Raises what an attached source raises.
        """
        (await self._started(copy_context(), serving=True)).pinned = True

    async def _started(self, context: Context, *, serving: bool) -> Runtime:
        opened = self._opened(context)
        runtime = self.runtime
        if opened:
            try:
                await self._begin(serving=serving)
            except BaseException:
                self.runtimes.pop(asyncio.get_running_loop(), None)
                raise
        elif serving and not runtime.pinned:
            await self._bus.start(self.engine.replica, serving=True)
        if serving and self._tiers is not None and runtime.l2 is None:
            runtime.l2 = self._tiers.l2(self.engine, self.counters, self.tracing, runtime.own)
            runtime.l2.start()
        return runtime

    def observe(self) -> bool:
        """Ask whether somebody records telemetry, unless that is known already; asked at start, and not again."""
        settings = self.settings
        return join(
            self,
            self.tracing,
            self.counters,
            tracer_provider=settings.tracer_provider,
            meter_provider=settings.meter_provider,
        )

    async def _begin(self, *, serving: bool) -> None:
        self.observe()
        await self._bus.start(self.engine.replica, serving=serving)
        if not self._looked_around and self._tiers is None:
            warn_of_other_workers()
        self._looked_around = True
        await self._sources.enter()

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

    async def stop(self) -> None:
        """End on the running loop: refreshes are cancelled, purges under way get one last while."""
        loop = asyncio.get_running_loop()
        if loop not in self.runtimes:
            return
        try:
            # Before the rest: what they still have in hand they purge through it.
            await self._sources.leave()
        finally:
            # Whatever a source raises, and whoever gives up waiting for it.
            await self._ended(self.runtimes.pop(loop, None))

    async def _ended(self, runtime: Runtime | None) -> None:
        if runtime is None:
            return
        undone = await runtime.close(self.settings.staleness_bound)
        if undone:
            logger.error("stopped with %d purge(s) or listener(s) unfinished", undone)
        lost = await self._bus.stop()
        await asyncio.gather(*self._last_words)
        self._last_words.clear()
        if lost:
            logger.error(
                "stopped with %d purge(s) that could not be written to the log: what they name is served by other "
                "replicas until its lifetime ends",
                lost,
            )

    async def __aenter__(self) -> Self:
        (await self._started(copy_context(), serving=False)).users += 1
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
        runtime = await self._started(Context(), serving=True)
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
        self._sources.attach(source)

    def expect_changes(self) -> None:
        """Have the answers of mutations wait for what their dependencies commit late, whatever their routes declare.

        For what tells `purge_with_request` by itself what is changed, and cannot know that before the commit.
        """
        self.expects_changes = True

    def expect_waiting(self) -> None:
        """Have each purge made here ask every replica to say at once that it has applied it, not at its next heartbeat.

        For what awaits `applied_everywhere` for each of them; one more call of each replica to the log for a purge.
        """
        self._expects_waiting = True

    def add_listener(self, listener: Listener) -> None:
        """Have an async function hear every purge made on this replica, once it has its number."""
        self._announcer.listeners.append(listener)

    def remove_listener(self, listener: Listener) -> None:
        """Take a listener off again; harmless when it is not on."""
        self._announcer.remove_listener(listener)

    def add_observer(self, observer: Observer) -> None:
        """Have a plain function hear every purge made on this replica, before the purge returns; it must not raise."""
        self._announcer.observers.append(observer)

    def remove_observer(self, observer: Observer) -> None:
        """Take an observer off again; harmless when it is not on."""
        self._announcer.remove_observer(observer)

    # -- invalidation ---------------------------------------------------------------------------

    async def invalidate(
        self, *tags: str, soft: bool = False, wait: Wait = None, causes: Iterable[Mapping[str, str]] = ()
    ) -> Receipt:
        """Purge every stored response that carries one of the tags; a soft purge makes them stale.

        It has its number, and this replica obeys it, when the call returns. Tags may carry a
        client's data: they are normalised and never raise; without any tag left nothing is purged
        but the receipt still has the log's last number. `wait="all"` also waits for every replica; one that is
        out of touch is not waited for, and keeps to `staleness_bound`. `causes` are the W3C Trace Context fields
        (`traceparent`, `tracestate`) of what led to it elsewhere: its span links to them.
        """
        named = normalise_tags(tags)
        self.counters.dropped_tags += sum(not tag for tag in tags)
        return await self.purge(named, soft=soft, wait=wait, causes=carried(causes))

    async def deliver(
        self,
        *tags: str,
        soft: bool = False,
        everything: bool = False,
        causes: Iterable[Mapping[str, str]] = (),
    ) -> Receipt:
        """`invalidate`, or `clear` for `everything`, that returns only once the purge has its number, however long.

        For what forgets an event when this returns: an offset is committed then, a message deleted. Raises
        `CacheNotRunning` where the cache has not been started on this loop.
        """
        _ = self.runtime
        named = (ALL,) if everything else normalise_tags(tags)
        linked = carried(causes)
        while True:
            try:
                return await self.purge(named, soft=soft, causes=linked)
            except PurgeNotDelivered:
                # It is fenced here and queued; what is queued has no receipt, and is purged once more for one.
                await paused(self.clock, _LOOK_AGAIN)
                while not self._bus.state().connected:
                    await paused(self.clock, _LOOK_AGAIN)

    async def applied_everywhere(self, receipt: Receipt) -> Receipt:
        """Wait until every replica in touch has applied a purge; its receipt, with `replicas` and `seconds`.

        Raises `ReplicasUnknown` where that cannot be found out; what depends on it waits for `staleness_bound` then.
        """
        began = self.clock.now()
        replica = self.engine.replica
        same = replica.term.number == receipt.term
        # A later term began with everything given up: who has come as far as this replica has given up that as well.
        line = LogEntry(replica.term, receipt.seq if same else replica.applied, "", (), receipt.soft, 0.0)
        replicas = await self._bus.applied_by_all(line)
        return replace(receipt, replicas=replicas, seconds=self.clock.now() - began)

    async def invalidate_url(self, path: str, *, soft: bool = False, wait: Wait = None) -> Receipt:
        """Purge what is stored of a path: all queries, variants and hosts; a query or host in it is ignored.

        Percent-encoded or decoded; without the root path that the app is served under. It may carry
        a client's data and never raises.
        """
        return await self.purge(tuple(map(path_tag, url_paths(path))), soft=soft, wait=wait)

    async def clear(self, *, soft: bool = False, wait: Wait = None) -> Receipt:
        """Purge everything that is stored under this namespace, of whatever version, and nothing else."""
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

    def invalidate_soon(self, *tags: str, soft: bool = False) -> None:
        """`invalidate` for plain functions on the event loop's own thread, which cannot wait: a task writes it.

        This replica obeys it when the call returns; it has its number soon. A log that is out of reach is logged, and
        the purge queued. Raises `CacheNotRunning` where the cache has not been started on the running loop.
        """
        runtime, named = self.runtime, normalise_tags(tags)
        self.counters.dropped_tags += sum(not tag for tag in tags)
        replica = self.engine.replica
        runtime.own(self._purge_soon(named, soft, None if soft else replica.fence(named)))

    async def _purge_soon(self, tags: tuple[str, ...], soft: bool, fence: int | None) -> None:  # noqa: FBT001
        try:
            await self.purge(tags, soft=soft)
        except PurgeNotDelivered as error:
            logger.warning("%s", error)
        finally:
            if fence is not None:
                self.engine.replica.lift(fence)

    async def purge(self, tags: tuple[str, ...], *, soft: bool, wait: Wait = None, causes: Carrier = ()) -> Receipt:
        """Write one purge of tags in normal form, reserved ones included, and tell the listeners."""
        if wait not in (None, "all"):
            raise ConfigurationError(f'wait is None or "all", not {wait!r}.')
        began = self.clock.now()
        prompt = self._expects_waiting or wait == "all"
        if not tags:
            replica = self.engine.replica
            return Receipt(replica.term.number, replica.applied, (), soft)
        if not self.running and self._tiers is None:
            await self._bus.start(self.engine.replica, serving=False)
        try:
            with self.tracing.span("cacheinval.invalidate", root=True, links=causes) as span:
                span.note("cacheinval.soft", soft)
                line = await self._bus.publish(Proposal(tags, soft, span.carrier, prompt=prompt))
                span.note("cacheinval.seq", line.seq)
        except PurgeNotDelivered:
            self.counters.purged("queued", len(tags), soft=soft)
            raise
        receipt = self._published(line)
        if wait == "all":
            replicas = await self._bus.applied_by_all(line)
            receipt = replace(receipt, replicas=replicas, seconds=self.clock.now() - began)
        telling = self._announcer.tell(receipt)
        if telling is not None:
            if self.running:
                self.runtime.own(telling)
            else:
                # Nothing here would wait for a task.
                await telling
        return receipt

    def _published(self, line: LogEntry) -> Receipt:
        self.counters.purged("published", len(line.tags), soft=line.soft)
        return receipt_of(line)

    async def read_up_to(self, token: Token) -> bool:
        """Catch up with a place in the log, if it is there; False where the log could not be asked in time."""
        return not token.ahead_of(self.engine.replica) or await self._bus.catch_up()

    # -- what the log tells -----------------------------------------------------------------------

    def applied(self, line: LogEntry, *, late: bool, seconds: float | None) -> None:
        """A purge of another replica was applied, `seconds` after the log took it; `late` without its message."""
        event = "missed" if late else "applied"
        self.counters.purged(event, len(line.tags), soft=line.soft, seconds=seconds)
        self.tracing.point("cacheinval.apply", line.trace, event=event, soft=line.soft, seq=line.seq)

    def numbered(self, line: LogEntry) -> None:
        """A purge that had been queued has its number."""
        telling = self._announcer.tell(self._published(line))
        if telling is not None:
            runtime = self.runtimes.get(asyncio.get_running_loop())
            if runtime is not None:
                runtime.own(telling)
            else:
                # The last purges of a cache that stops.
                self._last_words.append(asyncio.ensure_future(telling))

    def reset(self, term: int) -> None:
        """Everything that was kept had to be given up."""
        self.counters.resets += 1

    # -- what it reports ------------------------------------------------------------------------

    def statistics(self) -> Statistics:
        """A snapshot: what is kept, what was answered, and how the replica stands to the log."""
        return report(self.engine, self.counters, self._bus.state(), self.runtimes, self._sources, enabled=self.enabled)
