"""Waiting for tasks: for so long, to their end, and whatever comes in between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from fastapi_cacheinval.cache import HTTPCache

__all__ = ["done_within", "ended", "last_word"]

# Real seconds after which a task that has been cancelled is cancelled again.
_AGAIN = 0.25


async def done_within(task: asyncio.Task[Any], seconds: float, cache: HTTPCache) -> bool:
    """Whether a task is done, after so many seconds of the cache's clock at the most."""
    rung: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    alarm = cache.clock.call_later(seconds, rung.cancel)
    try:
        await asyncio.wait((task, rung), return_when=asyncio.FIRST_COMPLETED)
    finally:
        alarm.cancel()
    return task.done()


async def ended(task: asyncio.Task[Any], *, whatever: bool = False) -> None:
    """Cancel a task and wait for its end, whatever it is; more than once where it swallows that.

    With `whatever`, also where who waits is cancelled meanwhile.
    """
    while not task.done():
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError) if whatever else contextlib.nullcontext():
            await asyncio.wait((task,), timeout=_AGAIN)
    if not task.cancelled():
        # Looked at, so that nothing complains that nobody has.
        task.exception()


async def last_word(work: Coroutine[Any, Any, None]) -> None:
    """Do a last piece of work to its end, also where who waits for it is cancelled again and again."""
    task = asyncio.get_running_loop().create_task(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait((task,))
    if not task.cancelled():
        task.result()
