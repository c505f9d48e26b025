"""InnoDB reads rows as they stood at a transaction's first plain query, and writes them as they stand.

A look reads by locks what is written, and what is not written once more after the commit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Engine, ForeignKey, Select, Table, create_engine, delete, event, insert, update
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    make_transient_to_detached,
    mapped_column,
    relationship,
    sessionmaker,
)

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes


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
    name: Mapped[str] = mapped_column(default="")
    works: Mapped[list[Work]] = relationship(secondary=shown, passive_deletes=True)
    lamps: Mapped[list[Lamp]] = relationship(passive_deletes="all", lazy="joined")
    guards: Mapped[list[Guard]] = relationship(passive_deletes="all")


class Work(Own):
    __tablename__ = "work"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")


class Lamp(Own):
    """It goes with its room."""

    __tablename__ = "lamp"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")
    room_id: Mapped[int | None] = mapped_column(ForeignKey("room.id", ondelete="CASCADE"))


class Guard(Own):
    """It stays without its room."""

    __tablename__ = "guard"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")
    room_id: Mapped[int | None] = mapped_column(ForeignKey("room.id", ondelete="SET NULL"))


CLASSES: list[Any] = [Room, Work, Lamp, Guard]


def by_name(row: Any) -> list[str]:
    return [f"{type(row).__name__}:{row.name}"]


TAGS: dict[str, dict[Any, Any]] = {
    "templates": {cls: [cls.__tablename__ + ":{name}"] for cls in CLASSES},
    "functions": {cls: [by_name] for cls in CLASSES},
}


def there(row: Any) -> Any:
    """An object of a row that is there, which nothing is read for."""
    make_transient_to_detached(row)
    return row


WORK: dict[str, Callable[[Session, Room, Work], object]] = {
    "a changed row": lambda _, room, __: setattr(room, "name", "new"),
    "a deleted row": lambda session, room, _: session.delete(room),
    "a link": lambda _, room, __: room.works.append(there(Work(id=3, name=""))),
    "no link": lambda _, room, __: room.works.clear(),
    "an update()": lambda session, *_: session.execute(update(Room).values(name="new")),
    "a delete()": lambda session, *_: session.execute(delete(Room)),
    "a list": lambda session, *_: session.execute(update(Room), [{"id": 1, "name": "new"}]),
    "links": lambda session, *_: session.execute(delete(shown)),
    "an insert of links": lambda session, *_: session.execute(insert(shown), [{"room_id": 1, "work_id": 3}]),
}


def catalogue(connection: Any, _: object) -> None:
    """What InnoDB says of its foreign keys, which it follows by their names."""
    connection.create_function("database", 0, lambda: "rooms")
    connection.execute("ATTACH ':memory:' AS information_schema")
    connection.execute(
        "CREATE TABLE information_schema.key_column_usage (table_schema, constraint_name, table_name, column_name, "
        "ordinal_position, referenced_table_name)"
    )
    connection.executemany(
        "INSERT INTO key_column_usage VALUES ('rooms', ?, ?, 'room_id', 1, 'room')",
        [("a", "lamp"), ("B", "guard"), ("c", "shown")],
    )


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """SQLite under the name of the other database: it takes no locks, and nobody is there to wait for."""
    engine = create_engine(f"sqlite:///{tmp_path / 'rooms.db'}")
    event.listen(engine, "connect", catalogue)
    Own.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Room(id=1, works=[Work(id=1)], lamps=[Lamp(id=1)], guards=[Guard(id=1)]))
        session.add(Work(id=3))
        session.commit()
    engine.dialect.name = "mysql"
    yield engine
    engine.dispose()


def queries(engine: Engine, tags: dict[Any, Any], work: Callable[[Session, Room, Work], object]) -> list[str]:
    """The queries around this work, as MariaDB is told them; the app's own come before it."""
    told: list[str] = []

    def heard(_: Any, statement: Any, *__: object) -> None:
        if isinstance(statement, Select):
            told.append(" ".join(str(statement.compile(dialect=mysql.dialect())).split()))

    sessions = sessionmaker(engine)
    collector = collect_changes(sessions, HTTPCache(enabled=False), tags)
    try:
        with sessions() as session:
            room, other = session.get_one(Room, 1), session.get_one(Work, 1)
            assert room.works == [other]
            event.listen(engine, "before_execute", heard)
            work(session, room, other)
            session.flush()
            told.append(COMMIT)
            session.commit()
    finally:
        event.remove(engine, "before_execute", heard)
        collector.stop()
    return told


COMMIT = "COMMIT"
LOCK = re.compile(r" (FOR UPDATE|LOCK IN SHARE MODE)")


def read(query: str) -> tuple[str, frozenset[str]]:
    """The table whose rows a query reads, and their columns."""
    found = re.match(r"SELECT (?:DISTINCT )?(.*?) FROM (\w+)", query)
    assert found is not None, query
    return found[2], frozenset(one for one in found[1].split(", ") if one.startswith(found[2] + "."))


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("kind", TAGS)
def test_all_that_is_read_is_read_as_it_stands(engine: Engine, kind: str, work: str) -> None:
    """What is read without a lock is read with one as well, or after the commit; so are the queries inside."""
    told = queries(engine, TAGS[kind], WORK[work])
    at = told.index(COMMIT)
    locking = [one for one in told[:at] if LOCK.search(one)]
    assert locking or told[at + 1 :]
    current = {read(one) for one in (*locking, *told[at + 1 :])}
    # The association rows of a row that goes are deleted by the time that it is locked.
    assert {read(one) for one in told[:at]} <= current | {("shown", frozenset({"shown.room_id"}))}
    assert [len(LOCK.findall(one)) for one in locking] == [len(re.findall(r"\bSELECT\b", one)) for one in locking]


@pytest.mark.parametrize("work", ["a changed row", "a new row", "an update()", "a list", "mappings", "new rows"])
@pytest.mark.parametrize("kind", TAGS)
def test_rows_that_are_written_are_read_by_their_keys_and_locks(engine: Engine, kind: str, work: str) -> None:
    """The lock is there already; a plain query would show the app old rows, one in no order locks the rows beside."""
    told: list[str] = []

    def heard(_: Any, statement: Any, *__: object) -> None:
        told.append(" ".join(str(statement.compile(dialect=mysql.dialect())).split()))

    others: dict[str, Callable[[Session, Room, Work], object]] = {
        "a new row": lambda _, room, __: room.works.append(Work(id=2)),
        "mappings": lambda session, *_: session.bulk_update_mappings(Room.__mapper__, [{"id": 1, "name": "new"}]),
        "new rows": lambda session, *_: session.execute(insert(Room), [{"id": number} for number in (8, 9)]),
    }
    sessions = sessionmaker(engine)
    collector = collect_changes(sessions, HTTPCache(enabled=False), TAGS[kind])
    try:
        with sessions() as session:
            room, other = session.get_one(Room, 1), session.get_one(Work, 1)
            event.listen(engine, "before_execute", heard)
            {**WORK, **others}[work](session, room, other)
            session.flush()
    finally:
        event.remove(engine, "before_execute", heard)
        collector.stop()
    at = max(number for number, one in enumerate(told) if re.match("(UPDATE|INSERT INTO) (room|work) ", one))
    table = "work" if work == "a new row" else "room"
    after = [one for one in told[at:] if re.match(rf"SELECT {table}\.id, {table}\.name", one)]
    # The tags that are known by what has been written are not looked up.
    assert after or kind == "templates"
    assert all(one.endswith(f" ORDER BY {table}.id FOR UPDATE") for one in after)


BY_KEY: dict[Any, Any] = {cls: [cls.__tablename__ + ":{id}"] for cls in CLASSES}


@pytest.mark.parametrize("work", ["a link", "no link", "links", "an insert of links", "a deleted row"])
@pytest.mark.parametrize("kind", ["keys", *TAGS])
def test_what_is_linked_is_not_locked(engine: Engine, kind: str, work: str) -> None:
    """Two that unlink one row, and then change it, would wait for each other."""
    told = queries(engine, {"keys": BY_KEY, **TAGS}[kind], WORK[work])
    assert [one for one in told if LOCK.search(one) and re.search(r"(FROM|JOIN) work\b", one)] == []
    # What its key does not tell is read when no lock is needed.
    assert bool(told[told.index(COMMIT) + 1 :]) is (kind != "keys")


@pytest.mark.parametrize("kind", TAGS)
def test_what_is_joined_to_a_row_is_not_locked_with_it(engine: Engine, kind: str) -> None:
    """A relationship that is loaded with its row is no part of the row."""
    told = queries(engine, TAGS[kind], WORK["a changed row"])
    assert not [one for one in told if LOCK.search(one) and "JOIN" in one]


@pytest.mark.parametrize("kind", TAGS)
def test_rows_that_go_are_locked_as_their_delete_does(engine: Engine, kind: str) -> None:
    """A shared lock that becomes another one waits for who waits for it."""
    told = queries(engine, TAGS[kind], WORK["a deleted row"])
    first: dict[str, str] = {}
    for one in told:
        found = re.search(r"FROM (room|lamp|guard|shown)\b.* (FOR UPDATE|LOCK IN SHARE MODE)$", one)
        if found is not None:
            first.setdefault(found[1], found[2])
    assert first == dict.fromkeys(("room", "lamp", "guard", "shown"), "FOR UPDATE")


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("kind", TAGS)
def test_nothing_is_shared_where_queries_read_what_is_committed(engine: Engine, kind: str, work: str) -> None:
    """At READ COMMITTED a look needs no lock to see what a row is."""
    told = queries(engine.execution_options(isolation_level="READ UNCOMMITTED"), TAGS[kind], WORK[work])
    assert not [one for one in told if "SHARE" in one]
