"""How long an event takes, from where it happens to every replica: for each of the sources, and out to a CDN."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from bench.applying import TellingCache, tell_of_applied
from bench.report import Options, Table
from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.cdn import CDNPurger
from fastapi_cacheinval.contrib.cdn import Varnish as VarnishAdapter
from fastapi_cacheinval.contrib.kafka import KafkaSource
from fastapi_cacheinval.contrib.outbox import Outbox, OutboxRelay
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.contrib.sqs import SQSSource
from tests.contrib.kafka.broker import kafka
from tests.contrib.sqs.cloud import REGION, Cloud
from tests.servers.valkey import valkey
from tests.system.postgresql import postgresql
from tests.system.varnish import varnish_before

__all__ = ["run"]

_REPLICAS = 4
_ANYBODY = {"aws_access_key_id": "AKIAOFABENCH", "aws_secret_access_key": "not one"}

Event = Callable[[], Awaitable[object]]


class _Base(DeclarativeBase):
    pass


class _Product(_Base):
    __tablename__ = "product"
    id: Mapped[int] = mapped_column(primary_key=True)
    price: Mapped[int]


class _Fleet:
    """Replicas in one process: the first has the source, and hears of its own purges as they are made."""

    def __init__(self, url: str) -> None:
        self.caches = [TellingCache.from_url(url, staleness_bound=10, redis_timeout=3) for _ in range(_REPLICAS)]
        self._left = 0
        self._all = asyncio.Event()
        for cache in self.caches:
            tell_of_applied(cache, self.one)
        self.first.add_observer(lambda _: self.one())

    @property
    def first(self) -> HTTPCache:
        return self.caches[0]

    def one(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._all.set()

    async def milliseconds(self, event: Event) -> float:
        """From the event to the last replica; an event is one purge."""
        self._left = _REPLICAS
        self._all.clear()
        began = time.perf_counter()
        await event()
        async with asyncio.timeout(30):
            await self._all.wait()
        return (time.perf_counter() - began) * 1000

    @asynccontextmanager
    async def running(self, *sources: Any) -> AsyncIterator[None]:
        for source in sources:
            self.first.attach(source)
        async with AsyncExitStack() as stack:
            for cache in self.caches:
                await cache.start()
                stack.push_async_callback(cache.stop)
            yield


# -- what happens, and what brings it in ----------------------------------------------------------

Place = Callable[[_Fleet], Any]


@asynccontextmanager
async def _by_hand(fleet: _Fleet) -> AsyncIterator[Event]:
    async with fleet.running():
        yield lambda: fleet.first.invalidate("product:1")


@asynccontextmanager
async def _database(
    url: str, outbox: Outbox | None = None
) -> AsyncIterator[tuple[Any, async_sessionmaker[AsyncSession]]]:
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_Base.metadata.create_all)
            await connection.execute(text("INSERT INTO product VALUES (1, 0)"))
            if outbox is not None:
                await connection.run_sync(outbox.metadata.create_all)
        yield engine, async_sessionmaker(engine, expire_on_commit=False)
    finally:
        await engine.dispose()


def _sqlalchemy(url: str) -> Place:
    @asynccontextmanager
    async def place(fleet: _Fleet) -> AsyncIterator[Event]:
        async with _database(url) as (_, sessions), fleet.running():
            collector = collect_changes(sessions, fleet.first, {_Product: ["product:{id}"]})

            async def event() -> None:
                async with sessions.begin() as session:
                    (await session.get_one(_Product, 1)).price += 1

            yield event
            collector.stop()

    return place


def _outbox(url: str, *, wakes: bool) -> Place:
    @asynccontextmanager
    async def place(fleet: _Fleet) -> AsyncIterator[Event]:
        outbox = Outbox()
        async with _database(url, outbox) as (engine, sessions):
            relay = OutboxRelay(fleet.first, engine, outbox)

            async def event() -> None:
                async with sessions.begin() as session:
                    (await session.get_one(_Product, 1)).price += 1
                    await outbox.add_async(session, "product:1")
                if wakes:
                    relay.wake()

            async with fleet.running(relay):
                yield event

    return place


def _trigger(url: str, psql: Callable[[str], object]) -> Place:
    @asynccontextmanager
    async def place(fleet: _Fleet) -> AsyncIterator[Event]:
        outbox = Outbox()
        async with _database(url, outbox) as (engine, _):
            triggers = outbox.triggers("product", tags=["product:{id}"], dialect="postgresql")
            await asyncio.to_thread(psql, triggers.script)
            async with engine.connect() as plain, fleet.running(OutboxRelay(fleet.first, engine, outbox)):

                async def event() -> None:
                    await plain.execute(text("UPDATE product SET price = price + 1"))
                    await plain.commit()

                yield event

    return place


@asynccontextmanager
async def _kafka(fleet: _Fleet) -> AsyncIterator[Event]:
    with kafka() as broker:
        # A broker answers a fetch when there is something; this one, when its wait is over.
        config = broker.config(fetch_wait_max_ms=1)
        source = KafkaSource(fleet.first, config, [broker.topic], tags=lambda _: ["product:1"])
        async with fleet.running(source):
            yield lambda: asyncio.to_thread(broker.send, b"1")


@asynccontextmanager
async def _sqs(fleet: _Fleet) -> AsyncIterator[Event]:
    with tempfile.TemporaryDirectory() as directory:
        cloud = Cloud(Path(directory))
        await asyncio.to_thread(cloud.start)
        try:
            url = await asyncio.to_thread(cloud.queue)
            source = SQSSource(fleet.first, url, region=REGION, endpoint_url=cloud.url, client_options=_ANYBODY)
            async with fleet.running(source):
                yield lambda: asyncio.to_thread(cloud.send, url, {"tags": ["product:1"]})
        finally:
            await asyncio.to_thread(cloud.close)


async def _measured(place: Place, url: str, rounds: int) -> list[float]:
    fleet = _Fleet(url)
    async with place(fleet) as event:
        await fleet.milliseconds(event)
        return [await fleet.milliseconds(event) for _ in range(rounds)]


async def _purged_at_the_cdn(url: str, varnish: str, rounds: int) -> list[float]:
    """From a purge by hand until the CDN has confirmed it, after all replicas."""
    fleet, taken = _Fleet(url), list[float]()
    purger = CDNPurger(fleet.first, VarnishAdapter(varnish), again_after=0)
    async with fleet.running(purger):
        for _ in range(rounds + 1):
            began = time.perf_counter()
            await purger.purge(await fleet.first.invalidate("product:1"))
            taken.append((time.perf_counter() - began) * 1000)
    return taken[1:]


# -- the table --------------------------------------------------------------------------------------


def _row(name: str, taken: list[float]) -> tuple[str, ...]:
    taken.sort()
    return (name, f"{taken[len(taken) // 2]:.1f}", f"{taken[int(len(taken) * 0.95)]:.1f}", str(len(taken)))


def _there(program: str) -> bool:
    found = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin")
    return found is not None or any(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))


def run(options: Options) -> list[Table]:
    """One row for each source; PostgreSQL and Varnish where they are installed."""
    rounds, few = options.pick(200, 3), options.pick(20, 2)
    rows: list[tuple[str, ...]] = []
    with ExitStack() as stack:
        server = stack.enter_context(valkey())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="b")))

        def measure(name: str, place: Place, times: int = rounds) -> None:
            server.clear()
            rows.append(_row(name, asyncio.run(_measured(place, server.url, times))))

        def sqlite(name: str) -> str:
            return f"sqlite+aiosqlite:///{directory / name}.db"

        measure("`await cache.invalidate(…)`", _by_hand)
        measure("a SQLAlchemy session's commit, SQLite", _sqlalchemy(sqlite("orm")))
        measure("an outbox row, SQLite, `relay.wake()`", _outbox(sqlite("woken"), wakes=True))
        measure("an outbox row, SQLite, polled each 0.5 s", _outbox(sqlite("polled"), wakes=False), few)
        if _there("initdb"):
            database = stack.enter_context(postgresql())
            one, two = database.database(), database.database()
            measure("an outbox row, PostgreSQL, NOTIFY", _outbox(database.url(one), wakes=False))
            measure(
                "a trigger's row, PostgreSQL, NOTIFY",
                _trigger(database.url(two), lambda script: database.psql(script, two)),
            )
        measure("a Kafka record, librdkafka's mock broker", _kafka)
        measure("an SQS message, moto's server", _sqs)
        if _there("varnishd") and any(Path("/usr/lib").glob("*/varnish/vmods/libvmod_xkey.so")):
            server.clear()
            varnish = stack.enter_context(varnish_before(directory, [1]))
            taken = asyncio.run(_purged_at_the_cdn(server.url, varnish.url, rounds))
            rows.append(_row("`await cache.invalidate(…)` and out to a Varnish", taken))
    return [
        Table(
            "From an event to every replica",
            f"Milliseconds from just before the commit, the send or the call until all of {_REPLICAS} replicas have "
            "applied the purge; in the last row until the CDN has confirmed it as well. One event at a time, one "
            "Valkey, all but the servers in one process.",
            ("event", "median ms", "p95 ms", "events"),
            rows,
        )
    ]
