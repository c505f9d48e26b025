"""Transactions over very many rows: one purge of their tags, whoever commits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import create_engine, insert, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import assert_hit, assert_miss, capture_invalidations
from tests.helpers.mutations import ask, get
from tests.servers import Valkey
from tests.servers.fixtures import pytest_runtest_makereport, redis_server, shared_valkey

__all__ = ["pytest_runtest_makereport", "redis_server", "shared_valkey"]

pytestmark = pytest.mark.anyio

MOST = 99_999


@pytest.fixture
def permanent_prefixes() -> tuple[str, ...]:
    """The log's keys."""
    return ("{",)


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "row"
    id: Mapped[int] = mapped_column(primary_key=True)
    price: Mapped[int]


TAGS: Any = {Row: ["row:{id}"]}


def _table(path: Path, rows: int) -> Path:
    """A database with so many rows."""
    engine = create_engine(f"sqlite:///{path / 'rows.db'}")
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(Row), [{"id": number, "price": 1} for number in range(1, rows + 1)])
    engine.dispose()
    return path / "rows.db"


async def test_a_request_that_commits_very_many_rows_purges_just_those(tmp_path: Path) -> None:
    """They are purged by themselves when it commits, before its answer goes; what has none of them stays."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{_table(tmp_path, 9_000)}")
    cache, app, sessions = HTTPCache(hold_timeout=30), FastAPI(), async_sessionmaker(engine)
    app.add_middleware(CacheMiddleware, cache=cache)
    collector = collect_changes(sessions, cache, TAGS)

    async def session() -> AsyncIterator[AsyncSession]:
        async with sessions() as session:
            yield session
            await session.commit()

    own: Any = Depends(session)

    @app.get("/rows/{number}", dependencies=[cached(ttl=60, tags=["row:{number}"])])
    async def read(number: int) -> int:
        async with sessions() as session:
            found = await session.get(Row, number)
            return 0 if found is None else found.price

    @app.put("/write")
    async def write(session: AsyncSession = own) -> None:
        await session.execute(update(Row).values(price=2))

    async with cache:
        for path in ("/rows/7", "/rows/10000"):
            await get(app, path)
        with capture_invalidations(cache) as receipts:
            answer = await ask(app, "PUT", "/write")
        assert answer.status_code == 200
        assert {tag for receipt in receipts for tag in receipt.tags} == {f"row:{id_}" for id_ in range(1, 9_001)}
        assert not any(receipt.everything for receipt in receipts)
        after = await get(app, "/rows/7")
        assert_miss(after)
        assert after.json() == 2
        assert_hit(await get(app, "/rows/10000"))
    collector.stop()
    await engine.dispose()


def test_a_script_that_changes_a_hundred_thousand_rows_makes_one_purge(tmp_path: Path, redis_server: Valkey) -> None:
    """In Redis each of their tags is purged, and nothing else."""
    engine = create_engine(f"sqlite:///{_table(tmp_path, MOST)}")
    sessions = sessionmaker(engine, class_=Session)
    cache = HTTPCache.from_url(redis_server.url, redis_timeout=5)
    collector = collect_changes(sessions, cache, TAGS)
    with capture_invalidations(cache) as receipts, sessions() as session:
        session.execute(update(Row).values(price=2))
        session.commit()
    assert [(receipt.everything, len(receipt.tags)) for receipt in receipts] == [(False, MOST)]
    assert redis_server.execute("ZCARD", "{cacheinval}:tags") == MOST + 1
    collector.stop()
    engine.dispose()
