"""A cache that says when it has applied a line of another replica."""

from __future__ import annotations

from collections.abc import Callable

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.cache import internals_of
from fastapi_cacheinval.core.log_types import LogEntry
from fastapi_cacheinval.engine.internals import Internals
from fastapi_cacheinval.engine.listeners import LogRecorder

__all__ = ["TellingCache", "tell_of_applied"]


class _TellingRecorder(LogRecorder):
    tell: Callable[[], object] | None = None

    def applied(self, line: LogEntry, *, late: bool, seconds: float | None) -> None:
        super().applied(line, late=late, seconds=seconds)
        if self.tell is not None:
            self.tell()


class _TellingInternals(Internals):
    def _recorder(self) -> LogRecorder:
        self.recorder = _TellingRecorder(self.counters, self.tracing, self.listeners, self.feed)
        return self.recorder


class TellingCache(HTTPCache):
    """An `HTTPCache` for `tell_of_applied`."""

    _parts = _TellingInternals


def tell_of_applied(cache: HTTPCache, tell: Callable[[], object]) -> None:
    """Have a function called for each line that a `TellingCache` applies."""
    internals = internals_of(cache)
    assert isinstance(internals, _TellingInternals)
    internals.recorder.tell = tell
