"""Waiting until no replica hands out what was purged: a CDN that is purged before that is filled from one that does."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from fastapi_cacheinval import HTTPCache, Receipt

__all__ = ["everywhere"]

logger = logging.getLogger("fastapi_cacheinval.contrib.cdn")


async def everywhere(cache: HTTPCache, receipt: Receipt, closing: asyncio.Event) -> bool:
    """Wait until every replica has applied a purge, or cannot hand out what it names any more.

    Once `closing` is set it is waited for no longer than half the staleness bound; False where that was not enough.
    """
    half = cache.settings.staleness_bound / 2
    asking = asyncio.ensure_future(cache.applied_everywhere(receipt))
    try:
        if not await _unless(closing, asking, half):
            return False
        asking.result()
    except Exception as error:  # noqa: BLE001  # ReplicasUnknown, and whatever else keeps it from being known
        logger.debug("a purge of the CDN waits for the staleness bound: %s", error)
    else:
        return True
    finally:
        asking.cancel()
    rung = asyncio.Event()
    alarm = cache.clock.call_later(cache.settings.staleness_bound, rung.set)
    resting = asyncio.ensure_future(rung.wait())
    try:
        return await _unless(closing, resting, half)
    finally:
        alarm.cancel()
        resting.cancel()


async def _unless(closing: asyncio.Event, task: asyncio.Future[Any], seconds: float) -> bool:
    """Wait for a task, but only so long once this is closing; whether it is done."""
    closed = asyncio.ensure_future(closing.wait())
    try:
        await asyncio.wait((task, closed), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await asyncio.wait((task,), timeout=seconds)
    finally:
        closed.cancel()
    return task.done()
