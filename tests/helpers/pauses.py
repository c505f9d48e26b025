"""For how long one piece of work has the event loop for itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["LONGEST", "longest_pause"]

LONGEST = 0.02
"""Processor seconds for which other requests may have to wait for the loop."""


async def longest_pause(work: Callable[[], Awaitable[Any]], clock: Callable[[], float] = time.process_time) -> float:
    """The longest time in seconds of the clock for which other tasks of the loop had to wait."""
    pauses: list[float] = []
    ended = False

    async def watch() -> None:
        last = clock()
        while not ended:
            await asyncio.sleep(0)
            now = clock()
            pauses.append(now - last)
            last = now

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    await work()
    ended = True
    await watching
    return max(pauses)
