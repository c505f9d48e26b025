"""Looks lock the rows of PostgreSQL by their keys, as flushes write them, wherever the rows lie in the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, insert, select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from tests.system.postgresql import PostgreSQL, postgresql


class Base(DeclarativeBase):
    pass


class Seat(Base):
    __tablename__ = "seat"
    id: Mapped[int] = mapped_column(primary_key=True)
    row: Mapped[str] = mapped_column(default="a")


@pytest.fixture(scope="module")
def database() -> Iterator[PostgreSQL]:
    with postgresql() as server:
        server.psql("CREATE DATABASE seats")
        yield server


@pytest.fixture
def engine(database: PostgreSQL) -> Iterator[Engine]:
    """The rows lie the other way round than their keys."""
    made = create_engine(database.url("seats", "psycopg"))
    Base.metadata.drop_all(made)
    Base.metadata.create_all(made)
    with made.begin() as connection:
        connection.execute(insert(Base.metadata.tables["seat"]), [{"id": 3}, {"id": 2}, {"id": 1}])
    yield made
    made.dispose()


def _flush(session: Session) -> None:
    for seat in session.scalars(select(Seat)):
        seat.row = "b"
    session.flush()


WORK: dict[str, Callable[[Session], Any]] = {
    "flush": _flush,
    "update": lambda session: session.execute(update(Seat).where(Seat.row == "a").values(row="b")),
    "update by key": lambda session: session.execute(update(Seat), [{"id": 3, "row": "b"}, {"id": 1, "row": "b"}]),
}
TAGS: dict[str, Any] = {"columns": ["row:{row}"], "functions": [lambda seat: [f"row:{seat.row}"]]}


@pytest.mark.parametrize("tags", list(TAGS))
@pytest.mark.parametrize("kind", list(WORK))
def test_a_look_that_waits_for_a_row_holds_none_with_a_later_key(engine: Engine, kind: str, tags: str) -> None:
    """Two sessions that lock the same rows so never wait for each other in a circle."""
    sessions = sessionmaker(engine)
    collector = collect_changes(sessions, HTTPCache(), {Seat: TAGS[tags]})

    def work() -> None:
        with sessions() as session:
            WORK[kind](session)
            session.rollback()

    worker = Thread(target=work)
    with engine.connect() as other:
        other.execute(select(Seat.id).where(Seat.id == 1).with_for_update())
        worker.start()
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as third:
            waits = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            while not third.scalar(waits):
                assert worker.is_alive()
            free = third.scalars(select(Seat.id).where(Seat.id > 1).with_for_update(skip_locked=True)).all()
        other.rollback()
    worker.join()
    collector.stop()
    assert sorted(free) == [2, 3]
