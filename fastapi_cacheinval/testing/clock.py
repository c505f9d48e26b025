"""A clock that stands still until it is ticked."""

from __future__ import annotations

import asyncio
import heapq
import threading
from collections.abc import Callable
from itertools import count

from fastapi_cacheinval.errors import ConfigurationError
from fastapi_cacheinval.ports.clock import Alarm

__all__ = ["FakeClock"]

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
        if isinstance(start, bool) or not isinstance(start, int | float):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"start is seconds, not {start!r}.")
        self._now = float(start)
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
        """Let time pass; raises `ValueError` for a negative time, and for what is no number."""
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"time only grows: tick() takes seconds of at least 0, not {seconds!r}.")
        due: list[_FakeAlarm] = []
        with self._lock:
            self._now += seconds
            while self._alarms and self._alarms[0][0] <= self._now:
                due.append(heapq.heappop(self._alarms)[2])
        for alarm in due:
            if not alarm.cancelled and not alarm.loop.is_closed():
                alarm.loop.call_soon_threadsafe(alarm.ring)
