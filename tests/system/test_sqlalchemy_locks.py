"""Watched sessions on PostgreSQL lock their rows in the order in which the app's own writes do: no new deadlocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, ForeignKey, create_engine, delete, event, insert, text, update
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.contrib.sqlalchemy.locking import Kept, in_savepoint
from tests.system.postgresql import PostgreSQL
from tests.system.sessions import in_a_thread, wait_for_a_lock


class Base(DeclarativeBase):
    pass


class Hall(Base):
    __tablename__ = "hall"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")
    above_id: Mapped[int | None] = mapped_column(ForeignKey("hall.id"))
    above: Mapped[Hall | None] = relationship(remote_side="Hall.id")
    rows: Mapped[list[Row]] = relationship(passive_deletes=True)


class Row(Base):
    __tablename__ = "row"
    id: Mapped[int] = mapped_column(primary_key=True)
    hall_id: Mapped[int | None] = mapped_column(ForeignKey("hall.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(default="")


class Silent(Base):
    """It has no tags."""

    __tablename__ = "k_silent"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")


class Zone(Base):
    __tablename__ = "zone"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str] = mapped_column(default="")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "zone"}  # noqa: RUF012


class Block(Zone):
    """A part of it stands in a table of its own."""

    __tablename__ = "zone_block"
    id: Mapped[int] = mapped_column(ForeignKey("zone.id"), primary_key=True)
    size: Mapped[int] = mapped_column(default=0)
    __mapper_args__ = {"polymorphic_identity": "block"}  # noqa: RUF012


class Word(Base):
    __tablename__ = "word"
    text: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")


TAGS: dict[type, Any] = {
    Hall: ["hall:{name}"], Row: ["row:{name}"], Zone: ["zone:{name}"], Block: ["size:{size}"], Word: ["word:{name}"],
}  # fmt: skip


@pytest.fixture
def engine(server: PostgreSQL) -> Iterator[Engine]:
    """A new database whose rows do not lie in the order of their keys; texts are sorted as in a dictionary."""
    name = server.database()
    made = create_engine(server.url(name, "psycopg"))
    Base.metadata.create_all(made)
    with Session(made) as session:
        for cls in (Hall, Silent):
            session.execute(insert(cls), [{"id": number} for number in (3, 2, 1)])
        session.execute(insert(Row), [{"id": number, "hall_id": number} for number in (3, 2, 1)])
        session.execute(insert(Block), [{"id": 2}])
        session.execute(insert(Zone), [{"id": 1, "kind": "zone"}])
        session.execute(insert(Word), [{"text": text} for text in ("a", "B")])
        session.commit()
    yield made
    made.dispose()


def rename(*keys: tuple[type[Any], Any]) -> Callable[[Session], None]:
    """Load these rows in this order, and change them."""

    def work(session: Session) -> None:
        for one in [session.get_one(cls, key) for cls, key in keys]:
            one.name = "new"

    return work


def remove(*keys: tuple[type[Any], Any]) -> Callable[[Session], None]:
    def work(session: Session) -> None:
        for one in [session.get_one(cls, key) for cls, key in keys]:
            session.delete(one)

    return work


def raise_hall(session: Session) -> None:
    """A hall below another: SQLAlchemy writes the upper one first, whatever their keys are."""
    lower, upper = session.get_one(Hall, 1), session.get_one(Hall, 2)
    lower.above, lower.name, upper.name = upper, "new", "new"


def change_and_remove(session: Session) -> None:
    """Of classes without a relationship SQLAlchemy writes now one first, and now the other."""
    row, hall = session.get_one(Row, 2), session.get_one(Hall, 1)
    row.name = "new"
    session.delete(hall)


def enlarge(session: Session) -> None:
    block = session.get_one(Block, 2)
    block.name, block.size = "new", 5


WORK: dict[str, tuple[Callable[[Session], Any], str, str]] = {
    "rows of one class": (rename((Hall, 2), (Hall, 1)), "hall WHERE id = 1", "hall WHERE id = 2"),
    "rows by a text": (rename((Word, "a"), (Word, "B")), "word WHERE text = 'B'", "word WHERE text = 'a'"),
    "classes": (rename((Word, "a"), (Hall, 1)), "hall WHERE id = 1", "word WHERE text = 'a'"),
    "a row and its parent": (rename((Row, 1), (Hall, 1)), "hall WHERE id = 1", "row WHERE id = 1"),
    "one without tags between": (
        rename((Word, "a"), (Silent, 1), (Hall, 1)), "k_silent WHERE id = 1", "word WHERE text = 'a'",
    ),
    "classes of one table": (rename((Zone, 2), (Zone, 1)), "zone WHERE id = 1", "zone WHERE id = 2"),
    "tables of one row": (enlarge, "zone WHERE id = 2", "zone_block WHERE id = 2"),
    "rows below each other": (raise_hall, "hall WHERE id = 2", "hall WHERE id = 1"),
    "deleted rows": (remove((Row, 2), (Row, 1)), "row WHERE id = 1", "row WHERE id = 2"),
    "tables of a deleted row": (remove((Zone, 2)), "zone_block WHERE id = 2", "zone WHERE id = 2"),
    "a changed row and a deleted one": (change_and_remove, "row WHERE id = 2", "hall WHERE id = 1"),
    "a list by key": (
        lambda session: session.execute(update(Hall), [{"id": number, "name": "new"} for number in (1, 2)]),
        "hall WHERE id = 1", "hall WHERE id = 2",
    ),
    "a list": (
        lambda session: session.execute(update(Hall), [{"id": number, "name": "new"} for number in (3, 1, 2)]),
        "hall WHERE id = 3", "hall WHERE id IN (1, 2)",
    ),
    "mappings": (
        lambda session: session.bulk_update_mappings(
            Hall.__mapper__, [{"id": number, "name": "new"} for number in (3, 1, 2)]
        ),
        "hall WHERE id = 3", "hall WHERE id IN (1, 2)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("watched", [False, True], ids=["alone", "watched"])
@pytest.mark.parametrize("name", WORK)
def test_who_waits_for_a_row_holds_none_that_is_written_later(
    engine: Engine, server: PostgreSQL, name: str, *, watched: bool
) -> None:
    """Another session has the row that comes first, and can still take the one that comes after it."""
    work, first, later = WORK[name]
    with engine.connect() as other:
        other.execute(text(f"SELECT 1 FROM {first} FOR UPDATE"))
        thread, failed = in_a_thread(engine, work, TAGS if watched else None)
        try:
            wait_for_a_lock(server, engine)
            taken = other.execute(text(f"SELECT 1 FROM {later} FOR UPDATE SKIP LOCKED")).all()
        finally:
            other.rollback()
            thread.join()
    assert taken
    assert failed == []


def test_a_delete_that_waits_holds_nothing_of_its_row(engine: Engine, server: PostgreSQL) -> None:
    """Who has given the hall a new row can still change the hall."""
    with engine.connect() as other:
        other.execute(insert(Row).values(id=9, hall_id=1))
        thread, failed = in_a_thread(engine, remove((Hall, 1)), TAGS)
        try:
            wait_for_a_lock(server, engine)
            changed = other.execute(update(Hall).where(Hall.id == 1).values(name="other"))
            other.execute(delete(Row).where(Row.id == 9))
        finally:
            other.rollback()
            thread.join()
    assert changed.rowcount == 1
    assert failed == []


def test_an_error_that_ends_the_transaction_is_heard_itself(engine: Engine) -> None:
    """MariaDB has no savepoint any more after a deadlock: the error of the way back to it hides the deadlock."""
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        driver: Any = connection.connection.driver_connection

        def look() -> None:
            with in_savepoint(connection) as kept:
                known.append(kept)
                driver.execute("ROLLBACK")
                connection.execute(text("SELECT * FROM nothing_like_it"))

        known: list[Kept] = []
        with pytest.raises(ProgrammingError, match="nothing_like_it"):
            look()
        assert not known[0].transaction


def test_a_look_that_ends_the_transaction_is_no_look_without_an_answer(engine: Engine) -> None:
    """A key of another type makes a look careful; what the app has written before must not be lost in silence."""
    sessions = sessionmaker(engine)

    def ends(connection: Any, __: Any, statement: str, *___: object) -> None:
        if statement.startswith("SELECT hall.id"):
            connection.connection.driver_connection.execute("ROLLBACK")
            connection.exec_driver_sql("SELECT * FROM nothing_like_it")

    collector = collect_changes(sessions, HTTPCache(enabled=False), TAGS)
    event.listen(engine, "before_cursor_execute", ends)
    try:
        with sessions() as session, pytest.raises(DBAPIError, match="nothing_like_it"):
            session.execute(update(Hall), [{"id": 1.0, "name": "new"}])
    finally:
        event.remove(engine, "before_cursor_execute", ends)
        collector.stop()
