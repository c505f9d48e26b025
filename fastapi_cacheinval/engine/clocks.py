"""The real clock, and waiting on any clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi_cacheinval.ports.clock import Alarm, Clock

__all__ = ["SystemClock", "within"]


class SystemClock:
    """`CLOCK_BOOTTIME` where there is one, which counts suspension, else the monotonic clock."""

    def __init__(self) -> None:
        boottime = getattr(time, "CLOCK_BOOTTIME", None)
        # A bound C function: the hit path reads the clock once per request.
        self.now: Callable[[], float] = time.monotonic if boottime is None else partial(time.clock_gettime, boottime)
        self.wall: Callable[[], float] = time.time

    def call_later(self, seconds: float, ring: Callable[[], object]) -> Alarm:
        return asyncio.get_running_loop().call_later(seconds, ring)


async def within(clock: Clock, future: asyncio.Future[Any], seconds: float) -> bool:
    """Wait for a future for so long; whether it is done. It is never cancelled by this."""
    if future.done():
        return True
    rung: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    alarm = clock.call_later(seconds, rung.cancel)
    try:
        await asyncio.wait((future, rung), return_when=asyncio.FIRST_COMPLETED)
    finally:
        alarm.cancel()
    return future.done()
