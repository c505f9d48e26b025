"""Who hears what happens in a cache.

Subscribers of the feed, and the logger of decisions, hear everything at once; nothing is made while nobody listens. The
purges of the last while are remembered in any case. Listeners and observers hear of the purges that are made on this
replica, and counters and spans of the log's news.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi_cacheinval.core.checks import called
from fastapi_cacheinval.core.events import (
    ConnectionEvent,
    Decision,
    Event,
    Receipt,
    RecentPurges,
    ResetEvent,
    purge_event,
    receipt_of,
)
from fastapi_cacheinval.core.log_types import LogEntry
from fastapi_cacheinval.core.summary import MOST_APPLIED, AppliedPurge
from fastapi_cacheinval.engine.log_once import LogOnce
from fastapi_cacheinval.engine.runtime import Runtime, Runtimes
from fastapi_cacheinval.ports.clock import Clock
from fastapi_cacheinval.ports.telemetry import Telemetry
from fastapi_cacheinval.ports.tracing import Tracing
from fastapi_cacheinval.telemetry.counters import Counters

__all__ = ["Feed", "Listener", "Listeners", "LogRecorder", "Observer", "Subscriber"]

logger = logging.getLogger("fastapi_cacheinval.cache")
_decisions = logging.getLogger("fastapi_cacheinval.decisions")

Listener = Callable[[Receipt], Awaitable[None]]
Observer = Callable[[Receipt], object]
Subscriber = Callable[[Event], object]

_MOST_TAGS_LOGGED = 10


class Listeners:
    """Tells observers at once and listeners in a task; a listener that raises is logged, and the next one is told."""

    def __init__(self, runtimes: Runtimes, telemetry: Telemetry, feed: Feed) -> None:
        self.listeners: list[Listener] = []
        self.observers: list[Observer] = []
        self._runtimes = runtimes
        self._telemetry = telemetry
        self._feed = feed
        self._last_words: list[asyncio.Future[None]] = []
        self._log_once = LogOnce()

    def remove_listener(self, listener: Listener) -> None:
        """Take a listener off; harmless when it is not on."""
        with contextlib.suppress(ValueError):
            self.listeners.remove(listener)

    def remove_observer(self, observer: Observer) -> None:
        """Take an observer off; harmless when it is not on."""
        with contextlib.suppress(ValueError):
            self.observers.remove(observer)

    def published(self, line: LogEntry, by: str = "") -> Receipt:
        """Count a purge of this replica that has its number, and tell the feed who made it; its receipt."""
        self._telemetry.purged("published", len(line.tags), soft=line.soft)
        receipt = receipt_of(line)
        self._feed.purged(line, own=True, by=by, receipt=receipt)
        return receipt

    def queued(self, tags: tuple[str, ...], *, soft: bool) -> None:
        """Count a purge of this replica that has to wait for its number."""
        self._telemetry.purged("queued", len(tags), soft=soft)

    async def tell(self, receipt: Receipt) -> None:
        """Tell all; where the cache runs on a loop, the listeners are told in a task of that."""
        words = self._begun(receipt)
        if words is not None:
            # Nothing here would wait for a task.
            await words

    def numbered(self, line: LogEntry) -> None:
        """Tell all of a purge that had been queued."""
        words = self._begun(self.published(line))
        if words is not None:
            # The last purges of a cache that stops.
            self._last_words.append(asyncio.ensure_future(words))

    async def told(self) -> None:
        """Wait until the listeners have heard of the last purges of a cache that stops."""
        words, self._last_words = self._last_words, []
        await asyncio.gather(*words)

    def _begun(self, receipt: Receipt) -> Coroutine[Any, Any, None] | None:
        """Tell the observers, and the listeners in a task; what tells these, where the cache does not run here."""
        for observer in tuple(self.observers):
            observer(receipt)
        listeners = tuple(self.listeners)
        if not listeners:
            return None
        runtime = self._runtimes.get(asyncio.get_running_loop())
        if runtime is not None:
            runtime.own(self._each(listeners, receipt))
        elif not self._begun_elsewhere(listeners, receipt):
            return self._each(listeners, receipt)
        return None

    def _begun_elsewhere(self, listeners: tuple[Listener, ...], receipt: Receipt) -> bool:
        """Whether another loop runs the cache, and has a task tell them: what they use may belong to that loop."""

        def begin(runtime: Runtime) -> None:
            runtime.own(self._each(listeners, receipt))

        for runtime in list(self._runtimes.values()):
            if runtime.loop.is_running():
                with contextlib.suppress(RuntimeError):  # it has been closed since
                    runtime.loop.call_soon_threadsafe(begin, runtime)
                    return True
        return False

    async def _each(self, listeners: tuple[Listener, ...], receipt: Receipt) -> None:
        for listener in listeners:
            try:
                await listener(receipt)
            except Exception:
                level = self._log_once.level(listener)
                logger.log(level, "a purge listener failed: %r", listener, exc_info=True)
            else:
                self._log_once.well(listener)


class Feed:
    """Tells subscribers at once, on whichever thread it happens; one that raises is logged, and the next one is told.

    A front hit does not ask whether anybody listens: the middleware is told of that, by `watch`.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._subscribers: tuple[Subscriber, ...] = ()
        self._watching: list[weakref.WeakMethod[Callable[[], None]]] = []
        self._log_once = LogOnce()
        self.purges = RecentPurges()

    @property
    def on(self) -> bool:
        """Whether anybody is told of requests."""
        return bool(self._subscribers) or _decisions.isEnabledFor(logging.DEBUG)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Have a plain function hear all events from now on; what is returned takes it off again, harmless twice."""

        # Its own object: the same function may be on twice.
        def each(event: Event) -> object:
            return subscriber(event)

        called(subscriber, "subscriber")
        self._subscribers = (*self._subscribers, each)
        self._changed()

        def unsubscribe() -> None:
            self._subscribers = tuple([known for known in self._subscribers if known is not each])
            self._changed()

        return unsubscribe

    def watch(self, changed: Any) -> None:
        """Have a bound method called whenever `on` may have changed, for as long as its object lives."""
        self._watching.append(weakref.WeakMethod(changed))

    def _changed(self) -> None:
        self._watching = [each for each in self._watching if each() is not None]
        for each in self._watching:
            changed = each()
            if changed is not None:
                changed()

    # -- what happens ---------------------------------------------------------------------------

    def decided(self, decision: Decision) -> None:
        """A cacheable request was answered."""
        if _decisions.isEnabledFor(logging.DEBUG):
            _log(decision)
        self._tell(decision)

    def purged(
        self, line: LogEntry, *, own: bool, by: str = "", delay: float | None = None, receipt: Receipt | None = None
    ) -> None:
        """A purge is obeyed from now on."""
        event = purge_event(line, self._clock.wall(), own=own, by=by, delay=delay, receipt=receipt)
        self.purges.add(event)
        self._tell(event)

    def reset(self, term: int, cause: str) -> None:
        """Everything that was kept had to be given up."""
        if self._subscribers:
            self._tell(ResetEvent(self._clock.wall(), term, cause))

    def connection(self, *, connected: bool, cause: str) -> None:
        """The log is in touch from now on, or is not."""
        if self._subscribers:
            self._tell(ConnectionEvent(self._clock.wall(), connected, cause))

    def _tell(self, event: Event) -> None:
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception:
                logger.log(self._log_once.level(subscriber), "a subscriber of the feed failed", exc_info=True)
            else:
                self._log_once.well(subscriber)


def _log(decision: Decision) -> None:
    shown = ",".join(decision.tags[:_MOST_TAGS_LOGGED])
    more = len(decision.tags) - _MOST_TAGS_LOGGED
    _decisions.debug(
        # No path: what is in it may be somebody's.
        "route=%r result=%s reason=%s detail=%s key=%s tags=%s",
        decision.route,
        decision.result,
        decision.reason or "-",
        decision.detail or "-",
        decision.key or "-",
        (shown + (f",+{more}" if more > 0 else "")) or "-",
        extra={"cacheinval.decision": decision},
    )


class LogRecorder:
    """A `LogObserver` of one cache."""

    def __init__(self, counters: Counters, tracing: Tracing, listeners: Listeners, feed: Feed) -> None:
        self._counters = counters
        self._tracing = tracing
        self._listeners = listeners
        self._feed = feed
        self._lately: deque[AppliedPurge] = deque(maxlen=MOST_APPLIED)

    def lately(self) -> tuple[AppliedPurge, ...]:
        """The purges of others that were applied last, the newest last."""
        # A copy is made in one step; another thread may be adding one.
        return tuple(self._lately.copy())

    def applied(self, line: LogEntry, *, late: bool, seconds: float | None) -> None:
        """A purge of another replica was applied, `seconds` after the log took it; `late` without its message."""
        event = "missed" if late else "applied"
        for _ in range(line.purges):
            self._counters.purged(event, len(line.tags), soft=line.soft, seconds=seconds)
        self._lately.append(AppliedPurge(line.term.number, line.seq, seconds, late))
        self._feed.purged(line, own=False, delay=seconds)
        self._tracing.point(
            "cacheinval.apply", line.trace, event=event, soft=line.soft, seq=line.seq, term=line.term.number
        )

    def numbered(self, line: LogEntry) -> None:
        """A purge that had been queued has its number."""
        self._listeners.numbered(line)

    def reset(self, term: int, cause: str) -> None:
        """Everything that was kept had to be given up."""
        self._counters.resets[cause] += 1
        self._feed.reset(term, cause)
        self._tracing.point("cacheinval.reset", None, cause=cause, term=term)

    def connection(self, *, connected: bool, cause: str = "") -> None:
        """The log is in touch from now on, or is not, because of this."""
        self._feed.connection(connected=connected, cause=cause)
