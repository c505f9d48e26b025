"""Hearing of rows as they are committed: `LISTEN` on PostgreSQL, where the driver tells of notifications."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from fastapi_cacheinval.contrib.outbox.whole import whole

__all__ = ["Ear", "listening"]


class Ear:
    """What is heard on a channel: it rings for each notification, and once when the connection is lost."""

    def __init__(self, ring: Callable[[], object]) -> None:
        self.lost = False
        self._ring = ring

    def heard(self, *_: object) -> None:
        """A notification has come."""
        self._ring()

    def ended(self, *_: object) -> None:
        """The connection is gone, and with it what it would have told."""
        self.lost = True
        self._ring()


@asynccontextmanager
async def listening(engine: AsyncEngine, channel: str, ring: Callable[[], object]) -> AsyncGenerator[Ear]:
    """Ring for each notification; holds one connection of the engine's pool, with asyncpg, and else hears nothing."""
    ear = Ear(ring)
    if engine.dialect.driver != "asyncpg":
        yield ear
        return
    async with AsyncExitStack() as held:
        await whole(_listen(engine, channel, ear, held))
        try:
            yield ear
        finally:
            await whole(held.aclose())


async def _listen(engine: AsyncEngine, channel: str, ear: Ear, held: AsyncExitStack) -> None:
    connection = await held.enter_async_context(engine.connect())
    raw: Any = (await connection.get_raw_connection()).driver_connection

    async def no_more() -> None:
        # Back in the pool it must not go on listening; one that is lost has nothing to say.
        with contextlib.suppress(Exception):
            raw.remove_termination_listener(ear.ended)
            await raw.remove_listener(channel, ear.heard)

    raw.add_termination_listener(ear.ended)
    held.push_async_callback(no_more)
    await raw.add_listener(channel, ear.heard)
