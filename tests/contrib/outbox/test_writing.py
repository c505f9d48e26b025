"""What is to be purged is written in the caller's transaction, whatever that runs in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event, insert, select
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from fastapi_cacheinval import ConfigurationError
from fastapi_cacheinval.contrib.outbox import Outbox
from tests.helpers.outbox import PRODUCT, Base, Shop

pytestmark = pytest.mark.anyio


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


@pytest.fixture
def engine(tmp_path: Path, outbox: Outbox) -> Any:
    made = create_engine(f"sqlite:///{tmp_path / 'sync.db'}")
    Base.create_all(made)
    outbox.metadata.create_all(made)
    yield made
    made.dispose()


def tags_in(engine: Any, outbox: Outbox) -> list[list[str]]:
    with engine.connect() as connection:
        return [json.loads(tags) for tags in connection.execute(select(outbox.table.c.tags)).scalars()]


def test_a_session_a_scoped_session_and_a_connection_are_written_to(engine: Any, outbox: Outbox) -> None:
    """Each takes tags one by one or as an iterable, and what it commits is there."""
    with Session(engine) as session:
        outbox.add(session, ["product:1", "products"])
        session.commit()
    scoped = scoped_session(sessionmaker(engine))
    outbox.add(scoped, "product:2", "products")
    scoped.commit()
    scoped.remove()
    with engine.begin() as connection:
        outbox.add(connection, {"product:3"})
    assert tags_in(engine, outbox) == [["product:1", "products"], ["product:2", "products"], ["product:3"]]


async def test_their_asynchronous_kinds_are_too(opened: Shop) -> None:
    """AsyncSession, async_scoped_session, AsyncConnection, and `add` inside `run_sync`."""
    async with AsyncSession(opened.engine) as session:
        await opened.outbox.add_async(session, ["a"])
        await session.run_sync(lambda below: opened.outbox.add(below, ["b"]))
        await session.commit()
    scoped = async_scoped_session(async_sessionmaker(opened.engine), scopefunc=lambda: None)
    await opened.outbox.add_async(scoped, "c")
    await scoped.commit()
    await scoped.remove()
    async with opened.engine.begin() as connection:
        await opened.outbox.add_async(connection, "d")
    assert [json.loads(row.tags) for row in await opened.rows()] == [["a"], ["b"], ["c"], ["d"]]


async def test_it_is_written_while_a_session_commits(opened: Shop) -> None:
    """In `before_commit`, below an AsyncSession as well: what collects tags at flush can write them there."""

    class Watched(Session):
        pass

    @event.listens_for(Watched, "before_commit")
    def write(session: Session) -> None:
        opened.outbox.add(session, ["collected"])

    async with AsyncSession(opened.engine, sync_session_class=Watched) as session:
        await session.execute(insert(PRODUCT).values(id=2, price=1))
        await session.commit()
    assert [json.loads(row.tags) for row in await opened.rows()] == [["collected"]]


def test_a_rollback_takes_it_along_and_so_does_a_savepoint(engine: Any, outbox: Outbox) -> None:
    """It is of the transaction, or of the savepoint, that it was written in."""
    with Session(engine) as session:
        outbox.add(session, "rolled back")
        session.rollback()
        session.execute(insert(PRODUCT).values(id=7, price=1))
        with session.begin_nested() as savepoint:
            outbox.add(session, "undone")
            savepoint.rollback()
        outbox.add(session, "kept")
        session.commit()
    assert tags_in(engine, outbox) == [["kept"]]


def test_a_session_with_several_engines_writes_where_the_table_is(engine: Any, outbox: Outbox, tmp_path: Path) -> None:
    """`binds` of a session says which engine has the outbox."""
    other = create_engine(f"sqlite:///{tmp_path / 'other.db'}")
    with Session(binds={outbox.table: engine, PRODUCT: other}) as session:
        outbox.add(session, "a")
        session.commit()
    other.dispose()
    assert tags_in(engine, outbox) == [["a"]]


def test_tags_of_clients_are_written_as_they_are(engine: Any, outbox: Outbox) -> None:
    """Whatever a client's text has in it: quotes, surrogates, a zero byte, a megabyte."""
    hostile = ["'; DROP TABLE product; --", "\ud800", "a\0b", "Ö" * 1_000_000, "a", "a"]
    with engine.begin() as connection:
        outbox.add(connection, hostile)
    assert tags_in(engine, outbox) == [hostile[:-1]]


def test_what_purges_nothing_is_not_written(engine: Any, outbox: Outbox) -> None:
    """No tags, and empty ones, leave no row; `everything` needs none."""
    with engine.begin() as connection:
        outbox.add(connection)
        outbox.add(connection, [])
        outbox.add(connection, "", [""])
        assert connection.execute(select(outbox.table)).all() == []
        outbox.add(connection, everything=True, soft=True)
        row = connection.execute(select(outbox.table)).one()
    assert (row.tags, row.everything, row.soft, row.refused, row.trace) == ("[]", True, True, False, None)
    assert row.created is not None


async def test_what_is_no_session_and_no_tag_is_refused(engine: Any, outbox: Outbox, opened: Shop) -> None:
    """At once, with what to do instead, and before anything is written."""
    async with AsyncSession(opened.engine) as session:
        with pytest.raises(ConfigurationError, match="add_async"):
            outbox.add(session, "a")  # type: ignore[arg-type]
    with Session(engine) as session:
        with pytest.raises(ConfigurationError, match="AsyncSession or AsyncConnection"):
            await outbox.add_async(session, "a")  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="A tag is a str, not int"):
            outbox.add(session, ["a", 1])  # type: ignore[list-item]
    with pytest.raises(ConfigurationError, match="a name for its table"):
        Outbox("")


def test_numbers_are_not_used_again(engine: Any, outbox: Outbox) -> None:
    """A row that comes after the last was deleted has another number: the relay deletes by it."""
    with engine.begin() as connection:
        numbers = []
        for _ in range(3):
            outbox.add(connection, "a")
            numbers.append(connection.execute(select(outbox.table.c.id)).scalar_one())
            connection.execute(outbox.table.delete())
    assert len(set(numbers)) == 3


def test_it_stands_in_metadata_of_yours_under_a_name_of_yours() -> None:
    """`metadata=` is where create_all and Alembic look; the schema is part of the channel's name, which is never too long."""
    outbox = Outbox("purges", "shop", metadata=Base.__class__())
    assert list(outbox.metadata.tables) == ["shop.purges"]
    assert outbox.channel == "shop.purges"
    assert len(Outbox("p" * 80).channel) < 64
    assert repr(outbox) == "<Outbox 'shop.purges'>"
