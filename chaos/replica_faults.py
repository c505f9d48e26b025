"""Faults of a replica of the app, and heavy requests to it, on any kind of stage."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from itertools import count

from chaos.app import ROWS
from chaos.client import Connection, Lost
from chaos.lanes import LONG, Kind, do, last
from chaos.stage import Stage

__all__ = ["REPLICA_KINDS"]

# The load uses positive numbers. Writes with negative ones are not its own, so nothing is expected of them.
_numbers = count(-1, -1)
_PATIENCE = 5.0
_BURST = 200
_WAITERS = 20


async def _asked(stage: Stage, number: int, method: str, path: str, seconds: float = _PATIENCE) -> None:
    """One request on a connection of its own; its answer does not matter."""
    connection = Connection(stage.addresses[number])
    with contextlib.suppress(Lost):
        await connection.ask(method, path, seconds)
    connection.close()


@contextlib.asynccontextmanager
async def _paused(stage: Stage, draw: random.Random) -> AsyncIterator[str]:
    number = stage.one(draw)
    stage.pause(number)
    try:
        yield f"replica {number}"
        await last(stage.bound, draw, LONG)
    finally:
        stage.resume(number)


@contextlib.asynccontextmanager
async def _leader_stopped(stage: Stage, draw: random.Random) -> AsyncIterator[str]:
    """A replica makes a page for which requests to another replica wait, and is paused before the page is ready."""
    number, row = stage.one(draw), draw.randrange(ROWS)
    other = (number + 1) % stage.count
    await _asked(stage, other, "PUT", f"/rows/{row}?number={next(_numbers)}")
    asked = [asyncio.create_task(_asked(stage, number, "GET", f"/slow/{row}"))]
    # The handler takes at least three times as long, so it is still at work.
    await asyncio.sleep(0.05)
    stage.pause(number)
    try:
        asked += [asyncio.create_task(_asked(stage, other, "GET", f"/slow/{row}")) for _ in range(_WAITERS)]
        yield f"replica {number}"
        await last(stage.bound, draw, LONG)
    finally:
        stage.resume(number)
        await asyncio.gather(*asked)


@contextlib.asynccontextmanager
async def _killed(stage: Stage, draw: random.Random) -> AsyncIterator[str]:
    number = stage.mortal(draw)
    await do(stage.kill, number)
    try:
        yield f"replica {number}"
    finally:
        await do(stage.restart, number)


@contextlib.asynccontextmanager
async def _shut_down(stage: Stage, draw: random.Random) -> AsyncIterator[str]:
    number = stage.mortal(draw)
    yield f"replica {number}"
    await do(stage.restart, number)


@contextlib.asynccontextmanager
async def _big_purge(stage: Stage, draw: random.Random) -> AsyncIterator[str]:
    number, tags = stage.one(draw), draw.choice((5_000, 30_000, 90_000))
    yield f"{tags:,} tags by replica {number}"
    await _asked(stage, number, "POST", f"/purges/{tags}", 4 * _PATIENCE)


@contextlib.asynccontextmanager
async def _burst(stage: Stage, draw: random.Random) -> AsyncIterator[str]:
    """More writes and cold pages at once than there are connections to Redis."""
    number = stage.one(draw)
    rows = [draw.randrange(ROWS) for _ in range(_BURST)]
    yield f"{2 * _BURST} requests at once to replica {number}"
    async with asyncio.TaskGroup() as group:
        for row in rows:
            group.create_task(_asked(stage, number, "PUT", f"/rows/{row}?number={next(_numbers)}"))
            group.create_task(_asked(stage, number, "GET", f"/pairs/{row}/{draw.randrange(ROWS)}"))


REPLICA_KINDS: dict[str, Kind] = {
    "replica paused": _paused,
    "leader stopped": _leader_stopped,
    "replica killed": _killed,
    "replica shut down": _shut_down,
    "big purge": _big_purge,
    "burst of requests": _burst,
}
