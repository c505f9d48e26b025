"""Connections go back to their pool whoever is cancelled meanwhile: one left out would count as in use for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

__all__ = ["Releases"]


class Releases:
    """Replaces a pool's `release`, which a caller's time limit may cut off while it waits for the pool's lock."""

    def __init__(self, pool: Any) -> None:
        self._release = pool.release
        self._under_way: set[asyncio.Task[None]] = set()
        pool.release = self

    async def __call__(self, connection: Any) -> None:
        """Give a connection back."""
        if self._under_way or _has_to_end(connection):
            await asyncio.shield(self._begin(self._release(connection)))
            return
        # Nobody has the lock for longer than a step, so this takes no task.
        try:
            await self._release(connection)
        except asyncio.CancelledError:
            self._begin(self._once_more(connection))
            raise

    async def _once_more(self, connection: Any) -> None:
        with suppress(KeyError):
            await self._release(connection)

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            # Whoever waits for it is told; where nobody does, nobody has to be.
            task.exception()

    async def ended(self) -> None:
        """Wait for those that are under way."""
        if self._under_way:
            await asyncio.wait(self._under_way)


def _has_to_end(connection: Any) -> bool:
    """Whether it is closed as it comes back, with the lock held."""
    marked = getattr(connection, "should_reconnect", None)
    return marked is not None and bool(marked())
