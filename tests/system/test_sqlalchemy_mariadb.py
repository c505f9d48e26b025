"""Watched sessions on MariaDB lock what the app itself locks, and miss no row, whatever the level of the transaction is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Date,
    Engine,
    ForeignKey,
    String,
    Table,
    case,
    cast,
    create_engine,
    delete,
    event,
    extract,
    func,
    insert,
    select,
    text,
    type_coerce,
    update,
)
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, column_property, mapped_column, relationship, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import UnknownRows, collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.watched import watched
from tests.system.mariadb import mariadb


class Own(DeclarativeBase):
    pass


shown = Table(
    "shown",
    Own.metadata,
    Column("room_id", ForeignKey("room.id"), primary_key=True),
    Column("work_id", ForeignKey("work.id"), primary_key=True),
)


class Room(Own):
    __tablename__ = "room"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20), default="room")
    works: Mapped[list[Work]] = relationship(secondary=shown)


class Work(Own):
    __tablename__ = "work"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20), default="old")


class Seat(Own):
    __tablename__ = "seat"
    row: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20), default="old")
    both = column_property(row + number)


class Picture(Own):
    """The same rows, in another hierarchy."""

    __table__ = Work.__table__


def by_name(work: Work) -> list[str]:
    return [f"work:{work.name}"]


TAGS: dict[str, dict[Any, Any]] = {
    "templates": {Room: ["room:{name}"], Work: ["work:{name}"], Seat: ["seat:{name}"]},
    "functions": {Work: [by_name]},
}
REPEATABLE = "TRANSACTION ISOLATION LEVEL REPEATABLE READ"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """One server for all tests here."""
    with mariadb() as url:
        yield url


@pytest.fixture(scope="module")
def engine(server: str) -> Iterator[Engine]:
    """It waits for no lock."""
    made = create_engine(server, connect_args={"init_command": "SET innodb_lock_wait_timeout=1"})
    Own.metadata.create_all(made)
    yield made
    made.dispose()


def fill(engine: Engine, rows: int = 3) -> None:
    """This many rows in each table, of which the first rooms show the first work."""
    with Session(engine) as session:
        for table in reversed(Own.metadata.sorted_tables):
            session.execute(delete(table))
        for cls in (Room, Work):
            session.execute(insert(cls), [{"id": number} for number in range(1, rows + 1)])
        session.execute(insert(Seat), [{"row": 1 + at // 3, "number": 1 + at % 3} for at in range(rows)])
        session.execute(insert(shown), [{"room_id": 1, "work_id": 1}, {"room_id": 2, "work_id": 1}])
        session.commit()


# -- what is locked ----------------------------------------------------------------------------


def rename(cls: Any, *identities: Any) -> Callable[[Session], None]:
    """Load these rows, and change them in one flush."""

    def work(session: Session) -> None:
        for one in [session.get_one(cls, each) for each in identities]:
            one.name = "new"

    return work


def remove(*identities: int) -> Callable[[Session], None]:
    def work(session: Session) -> None:
        for one in [session.get_one(Room, each) for each in identities]:
            session.delete(one)

    return work


def link(session: Session) -> None:
    room, work = session.get_one(Room, 1), session.get_one(Work, 2)
    room.works.append(work)
    session.flush()


def unlink(session: Session) -> None:
    room = session.get_one(Room, 1)
    room.works.clear()
    session.flush()


WORK: dict[str, Callable[[Session], object]] = {
    "a row": rename(Work, 2),
    "rows": rename(Work, 1, 2),
    "rows with gaps": rename(Work, 1, 3),
    "rows by two columns": rename(Seat, (1, 1), (1, 2)),
    "rows by two columns with gaps": rename(Seat, (1, 1), (1, 3)),
    "rows that go": remove(3),
    "an update()": lambda session: session.execute(update(Work).where(Work.id.in_([1, 3])).values(name="new")),
    "an update() of names": lambda session: session.execute(
        update(Work).where(Work.id.in_([1, 3]), Work.name != "no").values(name="new")
    ),
    "a delete()": lambda session: session.execute(delete(Seat).where(Seat.row == 1, Seat.number == 2)),
    "a list": lambda session: session.execute(update(Work), [{"id": 1, "name": "new"}, {"id": 3, "name": "new"}]),
    "no link": unlink,
    "a link": link,
    "links": lambda session: session.execute(delete(shown).where(shown.c.room_id == 1)),
}


def locked(engine: Engine, work: Callable[[Session], object], tags: dict[Any, Any] | None) -> set[tuple[Any, ...]]:
    """The rows that another transaction cannot take once this is flushed; watched where there are tags."""
    sessions = sessionmaker(engine)
    collector = None if tags is None else collect_changes(sessions, HTTPCache(enabled=False), tags)
    found: set[tuple[Any, ...]] = set()
    try:
        with sessions() as session, engine.connect() as other:
            work(session)
            session.flush()
            for table in Own.metadata.sorted_tables:
                key = list(table.primary_key)
                every = {tuple(row) for row in other.execute(select(*key))}
                free = other.execute(select(*key).with_for_update(skip_locked=True).with_hint(table, FORCED)).all()
                found |= {(table.name, *row) for row in every - {tuple(row) for row in free}}
                other.rollback()
    finally:
        if collector is not None:
            collector.stop()
    return found


FORCED = "FORCE INDEX (PRIMARY)"


@pytest.mark.parametrize("rows", [3, 30, 300])
@pytest.mark.parametrize("name", WORK)
@pytest.mark.parametrize("kind", TAGS)
def test_a_watched_write_locks_no_more_than_the_write(engine: Engine, kind: str, name: str, rows: int) -> None:
    """In a small table MariaDB would pass, and lock, all rows for some of them."""
    fill(engine, rows)
    alone = locked(engine, WORK[name], None)
    assert locked(engine, WORK[name], TAGS[kind]) <= alone


# -- what is read ------------------------------------------------------------------------------


def by_text(name: str, statement: str) -> Callable[[str], Engine]:
    """The app sets a level by SQL, and has told SQLAlchemy another one."""

    def make(server: str) -> Engine:
        made = create_engine(server, isolation_level="READ COMMITTED")

        def heard(connection: Any, *_: object) -> None:
            if name == "begin":
                connection.exec_driver_sql(statement)
            else:
                connection.cursor().execute(statement)

        event.listen(made, name, heard)
        return made

    return make


LEVELS: dict[str, Callable[[str], Engine]] = {
    "the server's": create_engine,
    "READ COMMITTED": lambda server: create_engine(server, isolation_level="READ COMMITTED"),
    "SET SESSION at the connection": by_text("connect", f"SET SESSION {REPEATABLE}"),
    "SET SESSION at the begin": by_text("begin", f"SET SESSION {REPEATABLE}"),
    "SET TRANSACTION": by_text("begin", f"SET {REPEATABLE}"),
}
LINKS: dict[str, Callable[[Session, Room, Work], object]] = {
    "a link": lambda _, room, work: room.works.append(work),
    "a statement": lambda session, *_: session.execute(insert(shown), [{"room_id": 1, "work_id": 2}]),
    "a statement that unlinks": lambda session, *_: session.execute(delete(shown).where(shown.c.work_id == 2)),
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("work", LINKS)
@pytest.mark.parametrize("kind", TAGS)
def test_a_linked_row_that_others_have_changed_is_not_missed(
    engine: Engine, server: str, kind: str, work: str, level: str
) -> None:
    """They change it after the transaction has made its view, and are not held up by it."""
    fill(engine)
    with engine.begin() as other:
        other.execute(insert(shown), [{"room_id": 3, "work_id": 2}])
    own = LEVELS[level](server)
    with watched(own, TAGS[kind]) as (session, captured):
        room, linked = session.get_one(Room, 1), session.get_one(Work, 2)
        assert len(room.works) == 1
        with engine.begin() as other:
            other.execute(update(Work.__table__).where(Work.__table__.c.id == 2).values(name="new"))  # type: ignore[arg-type]
        LINKS[work](session, room, linked)
        session.flush()
        assert linked.name == "old"
        session.commit()
    own.dispose()
    assert "work:new" in {tag for one in captured for tag in one.tags}
    assert not any(one.everything for one in captured)


def test_a_row_is_read_as_it_stands_in_every_class(engine: Engine) -> None:
    """What others have made of it since the transaction has read it is what the write replaces."""
    fill(engine)
    with watched(engine, {Work: ["work:{name}"], Picture: ["picture:{name}"]}) as (session, captured):
        work = session.get_one(Work, 2)
        with engine.begin() as other:
            other.execute(update(Work.__table__).where(Work.__table__.c.id == 2).values(name="between"))  # type: ignore[arg-type]
        work.name = "new"
        session.commit()
    tags = {tag for one in captured for tag in one.tags}
    assert {"work:between", "work:new", "picture:between", "picture:new"} <= tags


class Kept:
    """An outbox in memory."""

    def __init__(self) -> None:
        self.tags: set[str] = set()

    def add(self, _: Session, tags: tuple[str, ...], /) -> None:
        self.tags |= set(tags)


def test_an_outbox_has_the_tags_of_linked_rows(engine: Engine) -> None:
    """It cannot wait for the commit, and no query before it would have made a view."""
    fill(engine)
    sessions, kept = sessionmaker(engine), Kept()
    collector = collect_changes(sessions, HTTPCache(enabled=False), TAGS["templates"], outbox=kept)
    try:
        with sessions() as session:
            session.execute(insert(shown), [{"room_id": 1, "work_id": 2}])
            session.commit()
    finally:
        collector.stop()
    assert kept.tags == {"room:room", "work:old"}


@pytest.mark.parametrize("kind", TAGS)
def test_two_that_unlink_a_row_that_the_other_changes_do_not_wait_in_a_ring(engine: Engine, kind: str) -> None:
    """Each unlinks a row, and then changes the one that the other has unlinked: nobody waits without a watch either."""
    fill(engine)
    sessions = sessionmaker(engine)
    collector = collect_changes(sessions, HTTPCache(enabled=False), TAGS[kind])
    with engine.begin() as other:
        other.execute(insert(shown), [{"room_id": 3, "work_id": 3}])
    try:
        with sessions() as one, sessions() as two:
            rooms = one.get_one(Room, 1), two.get_one(Room, 3)
            for room in rooms:
                room.works.clear()
            one.flush()
            two.flush()
            one.get_one(Work, 3).name = "new"
            two.get_one(Work, 1).name = "new"
            one.flush()
            two.flush()
            one.commit()
            two.commit()
    finally:
        collector.stop()


def test_a_commit_whose_linked_rows_cannot_be_read_purges_everything(engine: Engine) -> None:
    """The commit stands, and the app hears of no error."""
    fill(engine)
    sessions, cache = sessionmaker(engine), HTTPCache(enabled=False)
    collector = collect_changes(sessions, cache, TAGS["templates"])
    ended: list[bool] = []

    def refused(_: Any, __: Any, statement: str, *___: object) -> None:
        if ended and statement.startswith("SELECT work"):
            raise OperationalError(statement, {}, Exception("gone"))

    event.listen(engine, "before_cursor_execute", refused)
    event.listen(engine, "commit", lambda _: ended.append(True))
    try:
        with capture_invalidations(cache) as captured, sessions() as session:
            room = session.get_one(Room, 1)
            room.works.clear()
            session.commit()
    finally:
        event.remove(engine, "before_cursor_execute", refused)
        collector.stop()
    assert [one.everything for one in captured] == [True]


# -- conditions ---------------------------------------------------------------------------------


CERTAIN: dict[str, Callable[[], Any]] = {
    "a part of a time": lambda: extract("day", cast(func.concat("2026-01-0", Seat.number), Date)) > 1,
    "as another type": lambda: type_coerce(Seat.number, String) != "1",
    "a property over columns": lambda: Seat.both > 2,
    "by cases": lambda: case((Seat.number == 1, "first"), else_="other") == "other",
    "functions": lambda: func.year(func.concat("202", Seat.number, "-01-01")) > 2021,
}
SEATS: dict[Any, Any] = {Seat: ["seat:{number}", "named:{name}"]}


@pytest.mark.parametrize("name", CERTAIN)
def test_a_condition_about_the_row_alone_is_taken(engine: Engine, name: str) -> None:
    """MariaDB returns nothing of an UPDATE: the rows are looked up, and are the same."""
    fill(engine)
    with watched(engine, SEATS) as (session, receipts):
        statement = update(Seat).where(CERTAIN[name]()).values(name="new")
        session.execute(statement, execution_options={"synchronize_session": False})
        session.commit()
    assert [set(receipt.tags) for receipt in receipts] == [{"seat:2", "seat:3", "named:old", "named:new"}]


@pytest.mark.parametrize(
    ("condition", "cure"), [(func.now() > "2020", "datetime.now"), (text("number > 1"), "columns")]
)
def test_a_condition_with_the_time_or_as_text_is_refused(engine: Engine, condition: Any, cure: str) -> None:
    """The message says what to write."""
    fill(engine)
    with (
        watched(engine, SEATS) as (session, _),
        pytest.raises(UnknownRows, match=cure),
    ):
        session.execute(update(Seat).where(condition).values(name="new"))
