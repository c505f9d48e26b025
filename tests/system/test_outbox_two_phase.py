"""The outbox in transactions that PostgreSQL prepares first, as those of several databases are: none of them may notify."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import takewhile
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, insert, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.outbox import Outbox
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from tests.contrib.sqlalchemy.store import Base, Label
from tests.system.postgresql import PostgreSQL

OUTBOX = Outbox()


@pytest.fixture
def engine(server: PostgreSQL) -> Iterator[Engine]:
    made = create_engine(server.url(server.database(), "psycopg"))
    Base.metadata.create_all(made)
    OUTBOX.metadata.create_all(made)
    yield made
    made.dispose()


def committed(engine: Engine) -> tuple[list[int], list[str]]:
    """The rows of the app, and the tags of those of the outbox."""
    with engine.connect() as connection:
        rows = list(connection.scalars(select(Label.id)))
        return rows, list(connection.scalars(select(OUTBOX.table.c.tags).order_by(OUTBOX.table.c.id)))


@pytest.mark.parametrize("how", ["commit", "prepare", "savepoint"])
def test_a_session_hands_its_tags_over_and_commits(engine: Engine, how: str) -> None:
    """The row of the outbox is of the same transaction; a relay finds it by its clock."""
    sessions = sessionmaker(engine, twophase=True)
    collector = collect_changes(sessions, HTTPCache(enabled=False), {Label: ["label:{id}"]}, outbox=OUTBOX)
    try:
        with sessions() as session:
            session.add(Label(id=1))
            if how == "prepare":
                session.prepare()
            elif how == "savepoint":
                with session.begin_nested():
                    session.flush()
            session.commit()
    finally:
        collector.stop()
    assert committed(engine) == ([1], ['["label:1"]'])


@pytest.mark.anyio
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_an_asynchronous_session_does_too(engine: Engine, driver: str) -> None:
    """Whatever its driver is."""
    made = create_async_engine(engine.url.set(drivername=f"postgresql+{driver}"))
    sessions = async_sessionmaker(made, twophase=True)
    collector = collect_changes(sessions, HTTPCache(enabled=False), {Label: ["label:{id}"]}, outbox=OUTBOX)
    try:
        async with sessions() as session:
            session.add(Label(id=1))
            await session.commit()
        async with AsyncSession(made, twophase=True) as session:
            await OUTBOX.add_async(session, "by hand")
            await session.commit()
    finally:
        collector.stop()
        await made.dispose()
    assert committed(engine) == ([1], ['["label:1"]', '["by hand"]'])


@pytest.mark.parametrize("where", ["connection", "session"])
def test_what_the_app_adds_itself_is_prepared(engine: Engine, where: str) -> None:
    """On a connection, and in a session that nobody watches."""
    if where == "connection":
        with engine.connect() as connection, connection.begin_twophase() as transaction:
            connection.execute(insert(Label).values(id=1))
            OUTBOX.add(connection, "labels")
            transaction.prepare()
            transaction.commit()
    else:
        with Session(engine, twophase=True) as session:
            session.add(Label(id=1))
            OUTBOX.add(session, "labels")
            session.commit()
    assert committed(engine) == ([1], ['["labels"]'])


def test_other_transactions_notify(engine: Engine) -> None:
    """One after a prepared one on the same connection wakes the relays as before."""
    with engine.connect() as connection:
        listener = connection.execution_options(isolation_level="AUTOCOMMIT")
        listener.exec_driver_sql(f'LISTEN "{OUTBOX.channel}"')
        for twophase in (True, False, True):
            with Session(engine, twophase=twophase) as session:
                OUTBOX.add(session, "labels")
                session.commit()
        with engine.begin() as other:
            other.exec_driver_sql(f"NOTIFY \"{OUTBOX.channel}\", 'the end'")
        driver: Any = listener.connection.driver_connection
        with closing(driver.notifies(timeout=30)) as notified:
            heard = list(takewhile(bool, (one.payload != "the end" for one in notified)))
    assert len(heard) == 1
