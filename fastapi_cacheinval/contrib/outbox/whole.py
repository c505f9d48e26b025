"""Work with a database that no cancellation tears: drivers leave locks, or a broken connection, where one does."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["whole"]

T = TypeVar("T")


async def whole(work: Coroutine[Any, Any, T] | asyncio.Task[T]) -> T:
    """Wait for work in a task of its own; cancelled meanwhile, let it come to its end first, unless cancelled again."""
    task = work if isinstance(work, asyncio.Task) else asyncio.get_running_loop().create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        try:
            await asyncio.wait((task,))
        finally:
            if not task.done():
                task.cancel()
            elif not task.cancelled():
                # Looked at, so that nothing complains that nobody has.
                task.exception()
        raise
