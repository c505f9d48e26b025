"""What a cache makes of the log's news: counts, spans, and listeners that hear of what had been queued."""

from __future__ import annotations

from collections import deque

from fastapi_cacheinval.core.replica import LogEntry
from fastapi_cacheinval.core.summary import MOST_APPLIED, AppliedPurge
from fastapi_cacheinval.engine.decisions import Feed
from fastapi_cacheinval.engine.listeners import Listeners
from fastapi_cacheinval.ports.tracing import Tracing
from fastapi_cacheinval.telemetry.counters import Counters

__all__ = ["LogRecorder"]


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
