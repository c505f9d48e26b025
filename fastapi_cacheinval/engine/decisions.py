"""The feed: what a cache tells as it happens, to whoever has subscribed and to the logger of decisions.

Nothing is made while nobody listens. The purges of the last while are remembered in any case.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from typing import Any

from fastapi_cacheinval.core.checks import called
from fastapi_cacheinval.core.events import ConnectionEvent, Decision, Event, RecentPurges, ResetEvent, purge_event
from fastapi_cacheinval.core.log_types import LogEntry
from fastapi_cacheinval.engine.log_once import LogOnce
from fastapi_cacheinval.ports.clock import Clock

__all__ = ["Feed", "Subscriber"]

logger = logging.getLogger("fastapi_cacheinval.cache")
_decisions = logging.getLogger("fastapi_cacheinval.decisions")

Subscriber = Callable[[Event], object]

_MOST_TAGS_LOGGED = 10


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

    def purged(self, line: LogEntry, *, own: bool, by: str = "", delay: float | None = None) -> None:
        """A purge is obeyed from now on."""
        event = purge_event(line, self._clock.wall(), own=own, by=by, delay=delay)
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
