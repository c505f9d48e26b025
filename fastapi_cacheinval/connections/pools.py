"""A pool of redis-py that loses no connection where a call is cancelled.

redis-py takes a lock to put a connection back, and holds it while it closes another one. A call that was cancelled
while it waited for that lock never put its connection back: it counted as in use for ever, and the pool ran out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["keep_whole"]

# More than the lane of a client ever asks for: the lane keeps the number.
_UNBOUNDED = 1 << 31


def keep_whole(pool: Any) -> None:
    """Have a connection go back into a `redis.asyncio` pool whatever becomes of the call that had it.

    A connection that is lost all the same takes nobody's place.
    """
    release: Callable[[Any], Awaitable[None]] = pool.release
    under_way: set[asyncio.Future[None]] = set()

    async def released(connection: Any) -> None:
        if not _waits(pool, connection):
            await release(connection)
            return
        task = asyncio.ensure_future(release(connection))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        task.add_done_callback(_looked_at)
        await asyncio.shield(task)

    pool.release = released
    pool.max_connections = _UNBOUNDED


def _waits(pool: Any, connection: Any) -> bool:
    """Whether putting it back takes more than a moment: somebody has the pool's lock, or it is closed first."""
    locks = (getattr(pool, name, None) for name in ("_lock", "_condition"))
    if any(lock.locked() for lock in locks if lock is not None):
        return True
    should = getattr(connection, "should_reconnect", None)
    return should is not None and bool(should())


def _looked_at(task: asyncio.Future[None]) -> None:
    if not task.cancelled():
        # What a connection could not be closed for is nobody's concern.
        task.exception()
