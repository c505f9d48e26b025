"""A shop whose prices stand in a database, a replica that reads them, and writers that die."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from sqlalchemy import Column, Integer, MetaData, Table, Text, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from fastapi_cacheinval.contrib.outbox import Outbox, OutboxRelay
from tests.helpers.fleet import PATIENT, eventually
from tests.helpers.http import ask

__all__ = ["PRODUCT", "Base", "Replica", "Shop", "death_at_every_step", "relaying", "replica", "shop"]

ROOT = Path(__file__).parents[2]
Base = MetaData()
PRODUCT = Table(
    "product",
    Base,
    Column("id", Integer, primary_key=True),
    Column("price", Integer, nullable=False),
    Column("brand", Text),
)


@dataclass
class Shop:
    """A database with product 1 and an outbox, and the Redis of its replicas."""

    url: str
    redis: str
    engine: AsyncEngine
    outbox: Outbox = field(default_factory=Outbox)

    async def price(self) -> int:
        """What is committed."""
        async with self.engine.connect() as connection:
            return (await connection.execute(select(PRODUCT.c.price).where(PRODUCT.c.id == 1))).scalar_one()

    async def change(self, price: int, *tags: str, **how: Any) -> None:
        """Write the price of product 1 and what is to be purged, in one transaction."""
        async with self.engine.begin() as connection:
            await connection.execute(update(PRODUCT).where(PRODUCT.c.id == 1).values(price=price))
            await self.outbox.add_async(connection, tags or ("product:1",), **how)

    async def add(self, *tags: str, **how: Any) -> None:
        """Only what is to be purged."""
        async with self.engine.begin() as connection:
            await self.outbox.add_async(connection, tags, **how)

    async def rows(self) -> list[Any]:
        """What stands in the outbox."""
        async with self.engine.connect() as connection:
            return list((await connection.execute(select(self.outbox.table).order_by(self.outbox.table.c.id))).all())

    async def waiting(self) -> int:
        """How many rows the relay has to see through."""
        table = self.outbox.table
        async with self.engine.connect() as connection:
            found = await connection.execute(select(func.count()).where(table.c.refused.is_(False)))
            return found.scalar_one()

    async def empty(self) -> None:
        """Wait until nothing waits."""
        async with asyncio.timeout(20):
            while await self.waiting():  # noqa: ASYNC110  # there is no event for what a database holds
                await asyncio.sleep(0.005)


@asynccontextmanager
async def shop(url: str, redis: str) -> AsyncIterator[Shop]:
    """A shop in an empty database."""
    made = create_async_engine(url, pool_pre_ping=True)
    opened = Shop(url, redis, made)
    try:
        async with made.begin() as connection:
            await connection.run_sync(Base.create_all)
            await connection.run_sync(opened.outbox.metadata.create_all)
            await connection.execute(insert(PRODUCT).values(id=1, price=0, brand="acme"))
        yield opened
    finally:
        await made.dispose()


class Replica:
    """An app that serves the prices of a shop, cached."""

    def __init__(self, shop: Shop, **options: Any) -> None:
        self.cache = HTTPCache.from_url(shop.redis, **{**PATIENT, **options})
        self._app = FastAPI()
        self._app.add_middleware(CacheMiddleware, cache=self.cache)
        policy: Any = cached(ttl=3600, jitter=0, early_refresh=0, tags=["product:{product_id}", "products"])

        @self._app.get("/products/{product_id}", dependencies=[policy])
        async def read(product_id: int) -> int:
            return await shop.price()

    async def serves(self) -> int:
        """The price that a client is told."""
        return int((await ask(self._app, "/products/1")).body)

    async def up_to_date(self, publisher: HTTPCache, tag: str = "nothing that is cached") -> None:
        """Purge one more tag, and wait until it has applied that, and so all that is in the log by now."""
        receipt = await publisher.invalidate(tag)
        statistics = self.cache.statistics
        number = (receipt.term, receipt.seq)
        await eventually(lambda: (statistics().term, statistics().applied) >= number, "a replica that is up to date")


@asynccontextmanager
async def replica(shop: Shop, **options: Any) -> AsyncIterator[Replica]:
    """A replica that runs and is in touch."""
    started = Replica(shop, **options)
    await started.cache.start()
    try:
        await eventually(lambda: started.cache.statistics().lease_remaining > 0, "a lease")
        yield started
    finally:
        await started.cache.stop()


@asynccontextmanager
async def relaying(shop: Shop, count: int = 1, **options: Any) -> AsyncIterator[list[OutboxRelay]]:
    """So many relays, each over a cache of its own that only publishes."""
    async with contextlib.AsyncExitStack() as stack:
        relays: list[OutboxRelay] = []
        for _ in range(count):
            cache = await stack.enter_async_context(HTTPCache.from_url(shop.redis, **PATIENT))
            relays.append(await stack.enter_async_context(OutboxRelay(cache, shop.engine, shop.outbox, **options)))
        yield relays


@contextlib.contextmanager
def _mortals() -> Iterator[Any]:
    """What lives one life of `tests.helpers.dying` for each call; gives its exit status."""
    command = [sys.executable, "-m", "tests.helpers.dying"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        given, answers = process.stdin, process.stdout

        def live(**life: Any) -> int:
            given.write(json.dumps(life) + "\n")
            given.flush()
            told = answers.readline()
            assert told, "the process that forks has ended"
            return int(told)

        try:
            yield live
        finally:
            process.kill()


async def death_at_every_step(shop: Shop, *, outbox: bool) -> tuple[int, int, list[int]]:
    """Kill a writer before each step that it makes from its commit on, one life for each, until one lives through it.

    After each death another relay runs until the outbox is empty, and a replica that has the old price kept and is up
    to date is asked for it. Gives how many were killed, how many of those had committed, and the steps whose change
    the replica does not serve.
    """
    committed, lost = 0, list[int]()
    with _mortals() as live:
        async with replica(shop) as reader, HTTPCache.from_url(shop.redis, **PATIENT) as publisher:
            for step in count(1):
                before = await shop.price()
                await reader.up_to_date(publisher, "product:1")
                assert await reader.serves() == await reader.serves() == before
                life = {"database": shop.url, "redis": shop.redis, "price": before + 1, "step": step, "outbox": outbox}
                ended = await asyncio.to_thread(live, **life)
                assert ended in (0, -signal.SIGKILL), (step, ended)
                async with relaying(shop, poll=0.02):
                    await shop.empty()
                await reader.up_to_date(publisher)
                now = await shop.price()
                committed += now != before and ended != 0
                if await reader.serves() != now:
                    lost.append(step)
                if ended == 0:
                    return step - 1, committed, lost
    raise AssertionError
