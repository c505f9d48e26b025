"""Where the database commits each statement by itself, watched sessions miss no row, whoever has asked for that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Engine,
    ForeignKey,
    String,
    Table,
    create_engine,
    delete,
    event,
    insert,
    make_url,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.watched import watched
from tests.system.mariadb import mariadb
from tests.system.postgresql import postgresql


class Own(DeclarativeBase):
    pass


shown = Table(
    "shown",
    Own.metadata,
    Column("room_id", ForeignKey("room.id", ondelete="CASCADE"), primary_key=True),
    Column("work_id", ForeignKey("work.id", ondelete="CASCADE"), primary_key=True),
)


class Room(Own):
    __tablename__ = "room"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20), default="room")
    works: Mapped[list[Work]] = relationship(secondary=shown, passive_deletes=True)


class Work(Own):
    __tablename__ = "work"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20), default="work")


def by_event(name: str, do: Callable[[Any], object]) -> Callable[[str], Engine]:
    def make(server: str) -> Engine:
        made = create_engine(server)
        event.listen(made, name, lambda connection, *_: do(connection))
        return made

    return make


WAYS: dict[str, Callable[[str], Engine]] = {
    "SQLAlchemy": lambda server: create_engine(server, isolation_level="AUTOCOMMIT"),
    "the driver": lambda server: create_engine(server, connect_args={"autocommit": True}),
    "the server": lambda server: create_engine(server, connect_args={"autocommit": None}),
    "a listener": by_event("connect", lambda connection: connection.autocommit(True)),
    "SQL": by_event("begin", lambda connection: connection.exec_driver_sql("SET autocommit=1")),
}


def unlink(session: Session) -> None:
    room = session.get_one(Room, 1)
    room.works.clear()
    session.flush()


WORK: dict[str, Callable[[Session], object]] = {
    "a delete()": lambda session: session.execute(delete(Work).where(Work.id == 1)),
    "a delete() of a table": lambda session: session.execute(delete(Work.__table__).where(Work.__table__.c.id == 1)),  # type: ignore[arg-type]
    "session.delete()": lambda session: session.delete(session.get_one(Work, 1)),
    "a delete() of links": lambda session: session.execute(delete(shown).where(shown.c.work_id == 1)),
    "an insert() of links": lambda session: session.execute(insert(shown), [{"room_id": 1, "work_id": 2}]),
    "a collection": unlink,
}
TAGS: dict[str, dict[Any, Any]] = {
    "templates": {Room: ["room:{id}", "room:{name}"], Work: ["work:{id}"]},
    "functions": {Room: [lambda room: [f"room:{room.id}", f"room:{room.name}"]], Work: ["work:{id}"]},
}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """One server for all tests here."""
    with mariadb() as url:
        yield url


@pytest.mark.parametrize("kind", TAGS)
@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("way", WAYS)
def test_the_tags_of_linked_rows_are_purged(server: str, way: str, work: str, kind: str) -> None:
    """They take more than keys; no transaction that might have read them before is there to be waited for."""
    plain = create_engine(server)
    Own.metadata.drop_all(plain)
    Own.metadata.create_all(plain)
    with Session(plain) as session:
        first = Work(id=1)
        session.add_all([Room(id=1, works=[first]), Work(id=2)])
        session.commit()
    plain.dispose()
    engine = WAYS[way](server)
    with watched(engine, TAGS[kind]) as (session, captured):
        WORK[work](session)
        session.commit()
    engine.dispose()
    assert {"room:1", "room:room"} <= {tag for one in captured for tag in one.tags}
    assert not any(one.everything for one in captured)


@pytest.fixture(scope="module")
def servers(server: str) -> Iterator[dict[str, str]]:
    """A database of each kind."""
    with postgresql() as started:
        yield {"MariaDB": server, "PostgreSQL": started.url(started.database(), "psycopg")}


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["SQLAlchemy", "a listener"])
async def test_asyncpg_is_asked_as_well(servers: dict[str, str], how: str) -> None:
    """No look stands in a savepoint there, which would end with an error."""
    url = make_url(servers["PostgreSQL"]).set(drivername="postgresql+asyncpg")
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT" if how == "SQLAlchemy" else None)
    if how == "a listener":
        event.listen(engine.sync_engine, "connect", lambda made, _: setattr(made, "autocommit", True))
    async with engine.connect() as connection:
        await connection.run_sync(Own.metadata.drop_all)
        await connection.run_sync(Own.metadata.create_all)
    async with AsyncSession(engine) as session:
        session.add_all([Room(id=1, works=[Work(id=1)]), Work(id=2)])
        await session.commit()
    sessions, cache = async_sessionmaker(engine), HTTPCache(enabled=False)
    collector = collect_changes(sessions, cache, TAGS["templates"])
    try:
        with capture_invalidations(cache) as captured:
            async with sessions() as session:
                await session.execute(update(Room).values(name="new"))
                await session.execute(delete(Work).where(Work.id == 1))
                await session.delete(await session.get_one(Work, 2))
                await session.commit()
    finally:
        collector.stop()
        await engine.dispose()
    assert {tag for one in captured for tag in one.tags} == {"room:1", "room:room", "room:new", "work:1", "work:2"}


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("way", ["SQLAlchemy", "the driver"])
@pytest.mark.parametrize("name", ["MariaDB", "PostgreSQL"])
def test_a_transaction_that_the_app_begins_by_sql_is_purged_at_its_end(
    servers: dict[str, str], name: str, way: str, end: str
) -> None:
    """What is purged before its commit others read again as it was; what is rolled back is not purged."""
    engine = WAYS[way](servers[name])
    Own.metadata.drop_all(engine)
    Own.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Room(id=1))
        session.commit()
    with watched(engine, TAGS["templates"]) as (session, captured):
        session.execute(text("BEGIN"))
        session.execute(update(Room).values(name="new"))
        session.get_one(Room, 1).name = "newer"
        session.flush()
        assert not captured
        getattr(session, end)()
        purged = {tag for one in captured for tag in one.tags}
        assert session.get_one(Room, 1).name == ("newer" if end == "commit" else "room")
    engine.dispose()
    assert purged == ({"room:1", "room:room", "room:new", "room:newer"} if end == "commit" else set())
