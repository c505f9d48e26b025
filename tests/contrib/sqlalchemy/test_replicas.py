"""Watched sessions and a purge log in a real Redis: in SQLAlchemy's greenlets, in threads, and on the loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from fastapi_cacheinval import ConfigurationError, HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.store import TAGS, Base, Label, make_engine, tags_of
from tests.helpers.fleet import eventually, nothing_is_left_for_ever
from tests.servers import Valkey
from tests.servers.fixtures import pytest_runtest_makereport, redis_server, shared_valkey

__all__ = ["pytest_runtest_makereport", "redis_server", "shared_valkey"]

pytestmark = pytest.mark.anyio


@pytest.fixture
def permanent_prefixes() -> tuple[str, ...]:
    """The log's keys."""
    return ("{",)


@pytest.fixture(autouse=True)
def _nothing_left(redis_server: Valkey) -> Generator[None]:
    yield
    redis_server.revive()
    nothing_is_left_for_ever(redis_server.client)


@pytest.fixture
async def sessions(tmp_path: Path) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'store.db'}")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield async_sessionmaker(engine)
    await engine.dispose()


async def write(sessions: async_sessionmaker[AsyncSession], number: int) -> None:
    """One transaction."""
    async with sessions.begin() as session:
        session.add(Label(id=number))


@pytest.mark.parametrize("started", [True, False])
async def test_a_commit_returns_when_every_replica_can_hear_of_it(
    redis_server: Valkey, sessions: async_sessionmaker[AsyncSession], *, started: bool
) -> None:
    """The purge has its number in the log, whether the cache of the writer is started or not; another replica applies it."""
    writer, reader = HTTPCache.from_url(redis_server.url), HTTPCache.from_url(redis_server.url)
    collector = collect_changes(sessions, writer, TAGS)
    await reader.start()
    try:
        await eventually(lambda: reader.statistics().connected, "the reader's lease")
        if started:
            await writer.start()
        with capture_invalidations(writer) as receipts:
            await write(sessions, 11)
            assert tags_of(receipts) == [{"label:11"}]
        await eventually(
            lambda: reader._core.engine.replica.applied >= receipts[0].seq, "the purge on the other replica"
        )
    finally:
        await writer.stop()
        await reader.stop()
        collector.stop()


async def test_plain_sessions_reach_the_log_from_threads_and_from_the_loop(
    redis_server: Valkey, tmp_path: Path
) -> None:
    """A thread waits for the number; the loop's own thread does not, and the purge is fenced until it has one."""
    engine = make_engine(tmp_path)
    plain = sessionmaker(engine)
    cache = HTTPCache.from_url(redis_server.url)
    collector = collect_changes(plain, cache, TAGS)

    def plainly(number: int) -> None:
        with plain.begin() as session:
            session.add(Label(id=number))

    async with cache:
        await eventually(lambda: cache.statistics().connected, "the lease")
        with capture_invalidations(cache) as receipts:
            await asyncio.to_thread(plainly, 11)
            assert tags_of(receipts) == [{"label:11"}]
            plainly(12)
            assert len(receipts) == 1
            assert cache._core.engine.replica.fenced(("label:12",))
            await eventually(lambda: len(receipts) == 2, "the purge of the loop's own thread")
            await eventually(lambda: not cache._core.engine.replica.fenced(("label:12",)), "the end of its fence")
    with capture_invalidations(cache) as receipts:
        plainly(13)
        assert tags_of(receipts) == [{"label:13"}]
    collector.stop()
    engine.dispose()


async def test_a_commit_that_is_cancelled_while_it_purges_is_queued(
    redis_server: Valkey, sessions: async_sessionmaker[AsyncSession], tmp_path: Path
) -> None:
    """The transaction is committed: its purge is not lost with the task that waited for it."""
    cache = HTTPCache.from_url(redis_server.url, redis_timeout=5, staleness_bound=20)
    plain = make_engine(tmp_path)
    collector = collect_changes(sessions, cache, TAGS)
    async with cache:
        await eventually(lambda: cache.statistics().connected, "the lease")
        redis_server.pause()
        task = asyncio.create_task(write(sessions, 11))
        await eventually(lambda: _is_there(plain, 11), "the commit")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # At once where its call was cancelled. SQLAlchemy 2.0 lets the commit go on, and it when that is not answered.
        await eventually(lambda: cache.statistics().queue_length == 1, "the queued purge")
        assert cache._core.engine.replica.fenced(("label:11",))
        redis_server.resume()
        await eventually(lambda: cache.statistics().queue_length == 0, "the delivery")
    collector.stop()
    plain.dispose()


def _is_there(engine: Engine, number: int) -> bool:
    with Session(engine) as session:
        return session.get(Label, number) is not None


@pytest.mark.parametrize("started", [True, False])
async def test_a_commit_may_wait_until_every_replica_has_applied_it(
    redis_server: Valkey, sessions: async_sessionmaker[AsyncSession], *, started: bool
) -> None:
    """`wait="all"`: with heartbeats ten seconds apart each replica is at the purge when the commit returns."""
    caches = [HTTPCache.from_url(redis_server.url, staleness_bound=30.0, redis_timeout=5.0) for _ in range(3)]
    writer, *readers = caches
    collector = collect_changes(sessions, writer, TAGS, wait="all")
    running = caches if started else readers
    for cache in running:
        await cache.start()
    try:
        await eventually(lambda: all(cache.statistics().connected for cache in running), "leases")
        # An old term: in a young one there may be leases of the term before.
        redis_server.execute("HSET", "{cacheinval}:state", "opened", 1)
        for number in range(1, 6):
            with capture_invalidations(writer) as receipts:
                await write(sessions, number)
            assert receipts[0].replicas == len(running)
            assert {cache.statistics().applied for cache in running} == {receipts[0].seq}
    finally:
        for cache in running:
            await cache.stop()
        collector.stop()
    with pytest.raises(ConfigurationError, match="wait is None or"):
        collect_changes(sessions, writer, TAGS, wait="every")  # type: ignore[arg-type]
