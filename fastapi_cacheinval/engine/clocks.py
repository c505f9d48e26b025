"""The real clock, waiting on any clock, and the pauses between attempts that fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from fastapi_cacheinval.errors import ConfigurationError
from fastapi_cacheinval.ports.clock import Alarm, Clock

__all__ = ["ClockEstimate", "DoublingPause", "SystemClock", "checked_clock", "ended", "paused", "within"]

# Real seconds after which a task that has been cancelled is cancelled again.
_AGAIN = 0.25
# Seconds for which an estimate of another clock is taken for good, whatever came since.
_LONGEST_TRUST = 60.0


class SystemClock:
    """`CLOCK_BOOTTIME` where there is one, which counts suspension, else the monotonic clock."""

    def __init__(self) -> None:
        boottime = getattr(time, "CLOCK_BOOTTIME", None)
        # A bound C function: the hit path reads the clock once per request.
        self.now: Callable[[], float] = time.monotonic if boottime is None else partial(time.clock_gettime, boottime)
        self.wall: Callable[[], float] = time.time

    def call_later(self, seconds: float, ring: Callable[[], object]) -> Alarm:
        return asyncio.get_running_loop().call_later(seconds, ring)


def checked_clock(clock: Clock) -> Clock:
    """A clock as it was given; raises `ConfigurationError` for what is none."""
    calls = ("now", "wall", "call_later")
    if isinstance(clock, type) or not all(callable(getattr(clock, name, None)) for name in calls):
        raise ConfigurationError(
            f"clock is an object with now(), wall() and call_later(), as FakeClock; not {clock!r}."
        )
    return clock


async def within(clock: Clock, future: asyncio.Future[Any], seconds: float) -> bool:
    """Wait for a future for so long; whether it is done. It is never cancelled by this."""
    if future.done():
        return True
    rung: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def ring(_: object = None) -> None:
        if not rung.done():
            rung.set_result(None)

    alarm = clock.call_later(seconds, ring)
    future.add_done_callback(ring)
    try:
        await rung
    finally:
        alarm.cancel()
        future.remove_done_callback(ring)
    return future.done()


async def paused(clock: Clock, seconds: float) -> None:
    """Wait for so long."""
    await within(clock, asyncio.get_running_loop().create_future(), seconds)


async def ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait for their end, whatever it is.

    More than once where need be: before Python 3.12 `asyncio.wait_for`, which clients use, may swallow a cancellation.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        done, left = await asyncio.wait(left, timeout=_AGAIN)
        for task in done:
            if not task.cancelled():
                # Looked at, so that nothing complains that nobody has.
                task.exception()


class DoublingPause:
    """Pauses between attempts that fail, each twice as long as the last.

    They go from `first` to `longest` seconds, and from `first` again after `reset`. It waits for nothing itself.
    """

    __slots__ = ("_first", "_longest", "_next")

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._next = first

    def take(self) -> float:
        """The pause after one more failure, in seconds."""
        pause = self._next
        self._next = min(pause * 2, self._longest)
        return pause

    def reset(self) -> None:
        """An attempt has gone well."""
        self._next = self._first


class ClockEstimate:
    """How far a server's clock is from ours, from the round trips that bound it best.

    No purge is decided by it: it only shows how long ago something was written to that server.
    """

    __slots__ = ("_offset", "_taken", "_trip")

    def __init__(self) -> None:
        self._offset: float | None = None
        self._trip = self._taken = 0.0

    def learn(self, at: float, sent: float, received: float) -> None:
        """The server's time was `at` between two of ours; the estimate is off by half of that at most."""
        trip = received - sent
        if self._offset is None or trip <= self._trip or received - self._taken > _LONGEST_TRUST:
            self._offset, self._trip, self._taken = at - (sent + received) / 2, trip, received

    def forget(self) -> None:
        """Another server may answer from now on."""
        self._offset = None

    def server_time(self, now: float) -> float | None:
        """The server's time at one of ours, in seconds since the epoch; None where nothing was learned."""
        return None if self._offset is None else now + self._offset

    def since(self, at: float, now: float) -> float | None:
        """The seconds from the server's time `at` to ours; None where nothing was learned."""
        return None if self._offset is None else max(0.0, now + self._offset - at)
