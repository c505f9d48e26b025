"""For tests of apps that use the cache: its time, what it answered, what it purged."""

from __future__ import annotations

import asyncio
import heapq
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Protocol

from fastapi_cacheinval.cache import HTTPCache
from fastapi_cacheinval.core.receipt import Receipt
from fastapi_cacheinval.grammar.cache_status import CacheStatus, parse_cache_status
from fastapi_cacheinval.ports.clock import Alarm

__all__ = ["FakeClock", "assert_hit", "assert_miss", "assert_stale", "capture_invalidations"]

_EPOCH = 1_000_000_000.0


class _FakeAlarm:
    __slots__ = ("cancelled", "loop", "ring")

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], object]) -> None:
        self.loop = loop
        self.ring = ring
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeClock:
    """A clock that stands still until it is ticked: `HTTPCache(clock=FakeClock())`.

    It drives all of the cache's time: ages, lifetimes, leases, waits and bounds. `tick` may be
    called from any thread; what was due by then rings on its own loop.
    """

    def __init__(self, start: float = 1_000.0) -> None:
        self._now = start
        self._lock = threading.Lock()
        self._order = count()
        self._alarms: list[tuple[float, int, _FakeAlarm]] = []

    def __repr__(self) -> str:
        return f"<FakeClock {self._now:g} s, {self.waiting} waiting>"

    def now(self) -> float:
        """Seconds since an arbitrary moment."""
        return self._now

    def wall(self) -> float:
        """Seconds since the epoch; it moves with `tick` alone."""
        return _EPOCH + self._now

    @property
    def waiting(self) -> int:
        """How many alarms are set."""
        with self._lock:
            return sum(not alarm.cancelled for _, _, alarm in self._alarms)

    def call_later(self, seconds: float, ring: Callable[[], object]) -> Alarm:
        """Call `ring` on the running loop once the clock has been ticked that far."""
        alarm = _FakeAlarm(asyncio.get_running_loop(), ring)
        with self._lock:
            heapq.heappush(self._alarms, (self._now + seconds, next(self._order), alarm))
        return alarm

    def tick(self, seconds: float) -> None:
        """Let time pass; raises `ValueError` for a negative time."""
        if seconds < 0:
            raise ValueError("time only grows: tick() takes seconds of at least 0.")
        due: list[_FakeAlarm] = []
        with self._lock:
            self._now += seconds
            while self._alarms and self._alarms[0][0] <= self._now:
                due.append(heapq.heappop(self._alarms)[2])
        for alarm in due:
            if not alarm.cancelled and not alarm.loop.is_closed():
                alarm.loop.call_soon_threadsafe(alarm.ring)


class _Response(Protocol):
    """What httpx, httpx2 and Starlette's test client give."""

    @property
    def status_code(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...


def _status(response: _Response) -> CacheStatus | None:
    members = parse_cache_status(response.headers.get("cache-status", "").encode("latin-1", "replace"))
    return next((member for member in reversed(members) if member.cache == "cacheinval"), None)


def _story(response: _Response, wanted: str, status: CacheStatus | None) -> str:
    shown = ("cache-status", "age", "cache-control", "surrogate-key", "vary", "etag", "cacheinval-purge")
    lines = [f"  {name}: {response.headers[name]}" for name in shown if name in response.headers]
    if status is None:
        why = "no Cache-Status of ours: the route has no cached(), or the request did not pass the middleware"
    elif status.detail is not None:
        why = f"the cache gave a reason: {status.detail}"
    elif status.fwd is not None:
        why = f"the request went forward ({status.fwd})"
    else:
        why = f"it was answered from the cache with ttl={status.ttl}"
    return "\n".join([f"expected {wanted}, but {why}", f"  status: {response.status_code}", *lines])


def assert_hit(response: _Response) -> None:
    """The response was answered, fresh, from what is stored."""
    status = _status(response)
    if status is None or not status.hit or (status.ttl is not None and status.ttl < 0):
        raise AssertionError(_story(response, "a fresh hit", status))


def assert_stale(response: _Response) -> None:
    """The response was answered stale: while a refresh runs, or in place of an error."""
    status = _status(response)
    if status is None or status.ttl is None or status.ttl >= 0:
        raise AssertionError(_story(response, "a stale answer", status))


def assert_miss(response: _Response) -> None:
    """The response was made by the app, for this request or for one that this one waited for."""
    status = _status(response)
    if status is None or status.fwd is None or (status.ttl is not None and status.ttl < 0):
        raise AssertionError(_story(response, "an answer made by the app", status))


@contextmanager
def capture_invalidations(cache: HTTPCache) -> Generator[list[Receipt], None, None]:
    """The receipts of every purge made on this replica while the block runs, in order."""
    receipts: list[Receipt] = []
    note = receipts.append
    cache.add_observer(note)
    try:
        yield receipts
    finally:
        cache.remove_observer(note)
