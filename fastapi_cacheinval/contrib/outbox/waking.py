"""Hearing of rows as they are committed: `LISTEN` on PostgreSQL, by what each driver has for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from fastapi_cacheinval.contrib.outbox.whole import whole

__all__ = ["Ear", "listening"]


class Ear:
    """What is heard on a channel: it rings for each notification, and once when the connection is lost."""

    def __init__(self, channel: str, ring: Callable[[], object]) -> None:
        self.channel = channel
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
    """Ring for each notification; holds one connection of the engine's pool with asyncpg and psycopg, else is deaf."""
    ear = Ear(channel, ring)
    async with AsyncExitStack() as held:
        await whole(_listen(engine, ear, held))
        try:
            yield ear
        finally:
            await whole(held.aclose())


async def _listen(engine: AsyncEngine, ear: Ear, held: AsyncExitStack) -> None:
    hear = {"asyncpg": _by_asyncpg, "psycopg": _by_psycopg}.get(engine.dialect.driver)
    if hear is not None:
        connection = await held.enter_async_context(engine.connect())
        # What has listened does not go back into the pool.
        held.push_async_callback(connection.invalidate)
        await hear((await connection.get_raw_connection()).driver_connection, ear, held)


async def _by_asyncpg(raw: Any, ear: Ear, held: AsyncExitStack) -> None:
    raw.add_termination_listener(ear.ended)
    held.callback(raw.remove_termination_listener, ear.ended)
    await raw.add_listener(ear.channel, ear.heard)


async def _by_psycopg(raw: Any, ear: Ear, held: AsyncExitStack) -> None:
    await raw.set_autocommit(True)
    # Quoted, as `pg_notify` takes it: by the letter.
    quoted = '"' + ear.channel.replace('"', '""') + '"'
    await raw.execute(f"LISTEN {quoted}")
    task = asyncio.get_running_loop().create_task(_told_by_psycopg(raw, ear))

    async def end() -> None:
        task.cancel()
        await asyncio.wait((task,))

    held.push_async_callback(end)


async def _told_by_psycopg(raw: Any, ear: Ear) -> None:
    # Whatever ends it: the relay connects anew, and says why that fails.
    with contextlib.suppress(Exception):
        async for _ in raw.notifies():
            ear.heard()
    ear.ended()
