"""The composition root of the engine: what one cache is made of, and the framework's handle on it.

It imports as many modules as there are parts. `HTTPCache` is the face that users see.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from contextvars import Context

from fastapi_cacheinval.bus.local import LocalBus
from fastapi_cacheinval.connections.urls import Connect
from fastapi_cacheinval.core.fleet import Fleet
from fastapi_cacheinval.core.replica import Replica
from fastapi_cacheinval.core.root_paths import RootPaths
from fastapi_cacheinval.core.statistics import Statistics
from fastapi_cacheinval.core.tag_limits import (
    MOST_PURGE_BYTES,
    MOST_PURGE_TAGS,
    MOST_TAGS,
    BoundedTags,
    bounded_tags,
)
from fastapi_cacheinval.core.tags import ALL
from fastapi_cacheinval.core.token import Token
from fastapi_cacheinval.engine.body_budget import BodyBudget
from fastapi_cacheinval.engine.clocks import SystemClock, checked_clock
from fastapi_cacheinval.engine.engine import Engine, Kept
from fastapi_cacheinval.engine.forks import forget_after_fork
from fastapi_cacheinval.engine.lifecycle import Lifecycle
from fastapi_cacheinval.engine.listeners import Feed, Listeners, LogRecorder
from fastapi_cacheinval.engine.neighbours import Neighbour
from fastapi_cacheinval.engine.purger import Purger
from fastapi_cacheinval.engine.reporting import report
from fastapi_cacheinval.engine.runtime import Runtime, loop_here, runtime_here
from fastapi_cacheinval.engine.settings import Settings
from fastapi_cacheinval.engine.shadow import Shadow
from fastapi_cacheinval.engine.shared_bus import SharedBus
from fastapi_cacheinval.engine.sources import Sources
from fastapi_cacheinval.engine.summaries import SummaryFacts
from fastapi_cacheinval.engine.tiers import SharedTiers
from fastapi_cacheinval.engine.workers import warn_of_other_workers
from fastapi_cacheinval.errors import CacheNotRunning
from fastapi_cacheinval.ports.bus import Bus
from fastapi_cacheinval.ports.clock import Clock
from fastapi_cacheinval.stores.memory import MemoryStore
from fastapi_cacheinval.telemetry.counters import Counters
from fastapi_cacheinval.telemetry.reporting import join
from fastapi_cacheinval.telemetry.tracing import Spans

__all__ = ["Internals"]

# So many tags of a purge by hand are looked at before others have their turn.
_SLICE = 2_000
# What a purged tag takes in a replica, measured with tags of a dozen characters, and how many are remembered.
_CELL_BYTES = 242
_FEWEST_CELLS, _MOST_CELLS = 1_000, 200_000


class Internals:
    """The parts of one cache; `connect` makes Redis clients, and is None where everything stays in this process."""

    def __init__(self, settings: Settings, clock: Clock | None, connect: Connect | None, *, enabled: bool) -> None:
        self.settings = settings
        self.connect = connect
        self.clock = SystemClock() if clock is None else checked_clock(clock)
        self.enabled = enabled
        # Whether mutations tell by themselves what they change: see `HTTPCache.expect_changes`.
        self.expects_changes = False
        self.counters = self._counters()
        self.tracing = Spans()
        self.feed = Feed(self.clock)
        self.shadow = Shadow(settings.shadow, random.random)
        # Under which the apps of this cache are served, as far as they have been asked.
        self.root_paths = RootPaths()
        # One for each event loop that it has been started on; the middleware looks here on every forward.
        self.runtimes: dict[asyncio.AbstractEventLoop, Runtime] = {}
        self.bodies = BodyBudget(settings.max_in_flight_bytes)
        self.engine = self._engine()
        self.engine.routes = self.counters.routes
        replica = self.engine.replica
        self.listeners = Listeners(self.runtimes, self.counters, self.feed)
        self.sources = Sources()
        self._secret = settings.secret
        self.neighbour = Neighbour(self.engine.apps, self.runtimes, alone=connect is None)
        self._looked_around = False
        self._tiers = None if connect is None else SharedTiers(settings, connect, self.engine)
        local = LocalBus(self.clock.now)
        self.bus: Bus = local
        self._news = self._recorder()
        self._shared_bus: SharedBus | None = None
        if self._tiers is not None:
            self.bus = self._shared_bus = self._tiers.bus(self._news)
        self._facts: SummaryFacts | None = None
        self.lifecycle = Lifecycle(
            self.runtimes,
            replica,
            self.bus,
            self.sources,
            self.listeners,
            open_runtime=self._open_runtime,
            open_l2=self._open_l2,
            patience=settings.staleness_bound,
        )
        self.purger = Purger(
            replica,
            self.clock,
            self.bus,
            self.runtimes,
            self.listeners,
            self.tracing,
            local.attach if self._tiers is None else None,
        )

        self._local_bus = local
        forget_after_fork(self)

    def forked(self) -> object:
        """Forget what is the parent's, in a process that was forked; what may not be collected."""
        self.bodies.forked()
        self._local_bus.forked()
        return self.lifecycle.forked(), None if self._shared_bus is None else self._shared_bus.forked()

    def _counters(self) -> Counters:
        return Counters()

    def _recorder(self) -> LogRecorder:
        return LogRecorder(self.counters, self.tracing, self.listeners, self.feed)

    def _engine(self) -> Engine:
        settings = self.settings
        replica = Replica(
            staleness_bound=settings.staleness_bound,
            stale_when_disconnected=settings.stale_when_disconnected,
            # With those, they take half of the tier at the most; a small tier knows few responses that they concern.
            most_cells=max(_FEWEST_CELLS, min(_MOST_CELLS, settings.l1_max_bytes // 2 // _CELL_BYTES)),
        )
        store: MemoryStore[Kept] = MemoryStore(
            settings.l1_max_bytes, beside=replica.cells.__len__, beside_bytes=_CELL_BYTES
        )
        return Engine(settings, self.clock, store, replica)

    # -- life -----------------------------------------------------------------------------------

    def _open_runtime(self, context: Context) -> Runtime:
        self.observe()
        if self._secret is None:
            # Made at start, not in __init__: processes forked after it must not share it.
            self._secret = secrets.token_bytes(32)
        if not self._looked_around and self._tiers is None:
            warn_of_other_workers()
        self._looked_around = True
        return Runtime(
            self.clock,
            context,
            collapse_timeout=self.settings.collapse_timeout,
            most_refreshes=self.settings.max_refreshes,
            refresh_timeout=self.settings.refresh_timeout,
        )

    def _open_l2(self, runtime: Runtime) -> None:
        if self._tiers is None or runtime.l2 is not None:
            return
        if self._facts is None:
            # Its time begins with the first start.
            self._facts = SummaryFacts(
                self.settings,
                self.engine.apps,
                self.clock,
                statistics=lambda: self.statistics(by_route=True),
                applied=self._news.lately,
            )
        runtime.l2 = self._tiers.l2(self.counters, self.tracing, runtime.own, self._facts, lambda: self.identity)
        runtime.l2.start()

    def observe(self) -> bool:
        """Ask whether somebody records telemetry, unless that is known already; asked at start, and not again."""
        return join(
            self,
            self.tracing,
            self.counters,
            tracer_provider=self.settings.tracer_provider,
            meter_provider=self.settings.meter_provider,
        )

    async def started(self, context: Context | None = None) -> Runtime:
        """The loop-bound half for the running loop, started where it is not.

        With a context it runs until `stop`, and background work in copies of that. A request has none: background work
        is not its own, and `async with` blocks that are open already end the cache.
        """
        if context is None:
            return await self.lifecycle.serve(Context())
        runtime = await self.lifecycle.start(context, serving=True)
        runtime.pinned = True
        return runtime

    @property
    def runtime(self) -> Runtime:
        """The loop-bound half for the running loop; raises `CacheNotRunning` where there is none."""
        return runtime_here(self.runtimes)

    @property
    def running(self) -> bool:
        """Whether it has been started on the running loop; not so where none runs."""
        return loop_here() in self.runtimes

    @property
    def shares_partitions(self) -> bool:
        """Whether all replicas compose the same key for a partition: they know the secret, or there are none."""
        return self._tiers is None or self.settings.secret is not None

    @property
    def secret(self) -> bytes:
        """The key of partition digests; made at start where none was given."""
        secret = self._secret
        if secret is None:
            raise CacheNotRunning(
                "The cache has no secret before its start: use `async with cache:` or the middleware."
            )
        return secret.encode() if isinstance(secret, str) else secret

    @property
    def changes_elsewhere(self) -> bool:
        """Whether purges come from elsewhere than from what routes declare: watched sessions, or events."""
        return self.expects_changes or self.sources.brings_purges

    # -- purging and reporting ------------------------------------------------------------------

    async def named(self, tags: tuple[str, ...], *, everything: bool = False) -> tuple[str, ...]:
        """The tags of a purge by hand in normal form, of too many the one of everything; other work goes on meanwhile.

        What nothing is left of is dropped and counted.
        """
        bounded = BoundedTags(MOST_PURGE_TAGS, MOST_PURGE_BYTES)
        for begin in range(0, 0 if everything else len(tags), _SLICE):
            if begin:
                await asyncio.sleep(0)
            some = tags[begin : begin + _SLICE]
            fits = bounded.add(some)
            self.counters.dropped_tags += some.count("")
            self.neighbour.purges(some)
            if not fits:
                break
        return (ALL,) if everything else bounded.tags()

    def purge_soon(self, tags: tuple[str, ...], *, soft: bool, everything: bool) -> None:
        """Have a task make a purge by hand, which this replica obeys at once; raises `CacheNotRunning`."""
        # Of very many this replica gives up everything for a moment, rather than to look at each of them now.
        fenced = (ALL,) if everything or len(tags) > MOST_TAGS else bounded_tags(tags)
        self.purger.soon(lambda: self.named(tags, everything=everything), fenced, soft=soft)

    async def read_up_to(self, token: Token) -> bool:
        """Catch up with a place in the log, if it is there; False where the log could not be asked in time."""
        return not token.ahead_of(self.engine.replica) or await self.bus.catch_up()

    async def fleet(self) -> Fleet | None:
        """All replicas as Redis tells of them, None where there is no Redis; raises `TierUnavailable`."""
        return None if self._tiers is None else await self._tiers.fleet()

    @property
    def identity(self) -> str:
        """The id of this replica in the log; empty before the start, and where there is no Redis."""
        return "" if self._shared_bus is None else self._shared_bus.identity

    def statistics(self, *, by_route: bool = False) -> Statistics:
        """A snapshot: what is kept, what was answered, and how the replica stands to the log.

        By route as well where that is asked for: with a thousand of them it takes a millisecond or two.
        """
        return report(
            self.engine,
            self.counters,
            self.bus.state(),
            self.runtimes,
            self.sources,
            enabled=self.enabled,
            in_flight_bytes=self.bodies.held_bytes,
            by_route=by_route,
            shadow=self.shadow.statistics(),
        )
