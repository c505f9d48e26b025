"""A write that deletes or changes other rows besides: `OR REPLACE`, and writes in the values of attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, ForeignKey, UniqueConstraint, delete, event, func, insert, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import UnknownRows, collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.store import obedient, tags_of


class Own(DeclarativeBase):
    pass


class Seat(Own):
    __tablename__ = "seat"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(unique=True)
    count: Mapped[int] = mapped_column(default=0)


class Guest(Own):
    """It goes with its seat."""

    __tablename__ = "guest"
    id: Mapped[int] = mapped_column(primary_key=True)
    seat_id: Mapped[int] = mapped_column(ForeignKey("seat.id", ondelete="CASCADE"))


class Slot(Own):
    """Its constraint has SQLite delete what is in a new row's way."""

    __tablename__ = "slot"
    __table_args__ = (UniqueConstraint("code", sqlite_on_conflict="REPLACE"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str]


GONE: Any = delete(Guest).returning(Guest.id).cte("gone")
COUNT: Any = select(func.count(GONE.c.id)).scalar_subquery()
TAGS: dict[Any, Any] = {Seat: ["seat:{id}"], Guest: ["guest:{id}"], Slot: ["slot:{id}"]}
WIDE: dict[Any, Any] = {Seat: "seats", Guest: "guests", Slot: "slots"}
Work = Callable[[Session], Any]

REPLACING: dict[str, Work] = {
    "update": lambda s: s.execute(update(Seat).where(Seat.id == 1).values(code="b").prefix_with("OR REPLACE")),
    "update of the table": lambda s: s.execute(
        update(Seat.__table__).values(code="b").where(Seat.__table__.c.id == 1).prefix_with("or replace")  # type: ignore[arg-type]
    ),
    "bulk update": lambda s: s.execute(update(Seat).prefix_with("OR REPLACE"), [{"id": 1, "code": "b"}]),
    "insert": lambda s: s.execute(insert(Seat).values(id=3, code="b").prefix_with("OR REPLACE")),
}
SLOTS: dict[str, Work] = {
    "add": lambda s: s.add(Slot(id=3, code="b")),
    "an attribute": lambda s: setattr(s.get(Slot, 1), "code", "b"),
    "insert": lambda s: s.execute(insert(Slot).values(id=3, code="b")),
    "update": lambda s: s.execute(update(Slot).where(Slot.id == 1).values(code="b")),
    "bulk_insert_mappings": lambda s: s.bulk_insert_mappings(Slot, [{"id": 3, "code": "b"}]),  # type: ignore[arg-type]
    "bulk_save_objects": lambda s: s.bulk_save_objects([Slot(id=3, code="b")]),
}
VALUES: dict[str, Work] = {
    "an attribute": lambda s: setattr(s.get(Seat, 1), "count", COUNT),
    "add": lambda s: s.add(Seat(id=3, code="c", count=COUNT)),
    "bulk_insert_mappings": lambda s: s.bulk_insert_mappings(Seat, [{"id": 3, "code": "c", "count": COUNT}]),  # type: ignore[arg-type]
    "bulk_update_mappings": lambda s: s.bulk_update_mappings(Seat, [{"id": 1, "count": COUNT}]),  # type: ignore[arg-type]
    "bulk_save_objects": lambda s: s.bulk_save_objects([Seat(id=3, code="c", count=COUNT)]),
}


@pytest.fixture
def seats(tmp_path: Path) -> Iterator[Engine]:
    engine = obedient(tmp_path / "seats.db")
    Own.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Seat(id=1, code="a"), Seat(id=2, code="b"), Slot(id=1, code="a"), Slot(id=2, code="b")])
        session.flush()
        session.add(Guest(id=1, seat_id=2))
        session.commit()
    yield engine
    engine.dispose()


def purged_by(engine: Engine, work: Work, tags: Any = TAGS, **options: Any) -> set[str]:
    """The tags that a transaction purges."""
    cache, sessions = HTTPCache(), sessionmaker(engine)
    collector = collect_changes(sessions, cache, tags, **options)
    try:
        with capture_invalidations(cache) as receipts, sessions.begin() as session:
            work(session)
    finally:
        collector.stop()
    return set().union(*tags_of(receipts))


@pytest.mark.parametrize("kind", list(SLOTS))
def test_a_session_that_nobody_watches_may_write_what_a_watched_one_is_refused(seats: Engine, kind: str) -> None:
    """Events of a class come from the sessions of all factories."""
    watched, others = sessionmaker(seats), sessionmaker(seats)
    collector = collect_changes(watched, HTTPCache(), TAGS)
    try:
        with others.begin() as session:
            SLOTS[kind](session)
    finally:
        collector.stop()


@pytest.mark.parametrize("kind", ["an attribute", "add"])
def test_a_value_that_writes_is_none_of_ours_in_a_session_that_nobody_watches(seats: Engine, kind: str) -> None:
    """SQLite knows no write in a query, and says so itself."""
    watched, others = sessionmaker(seats), sessionmaker(seats)
    collector = collect_changes(watched, HTTPCache(), TAGS)
    try:
        with pytest.raises(OperationalError), others.begin() as session:
            VALUES[kind](session)
    finally:
        collector.stop()


@pytest.mark.parametrize("kind", list(REPLACING))
def test_what_a_replacing_statement_deletes_needs_wide_tags(seats: Engine, kind: str) -> None:
    """Nobody knows the rows in its way, nor those that go with them: it is refused before it is run, or wide."""
    with pytest.raises(UnknownRows, match="may replace rows"):
        purged_by(seats, REPLACING[kind])
    with pytest.raises(UnknownRows, match="Guest"):
        purged_by(seats, REPLACING[kind], wide={Seat: "seats"})
    with pytest.raises(UnknownRows, match="Guest"):
        purged_by(seats, REPLACING[kind], {Guest: ["guest:{id}"]})
    with Session(seats) as session:
        assert session.get_one(Seat, 2).code == "b"
    assert purged_by(seats, REPLACING[kind], wide=WIDE) == {"seats", "guests"}
    with Session(seats) as session:
        assert session.get(Guest, 1) is None


@pytest.mark.parametrize("kind", list(SLOTS))
def test_what_a_replacing_constraint_deletes_needs_wide_tags(seats: Engine, kind: str) -> None:
    """`ON CONFLICT REPLACE` stands in the table: a flush and a plain statement may delete other rows by it."""
    with pytest.raises(UnknownRows, match="replace"):
        purged_by(seats, SLOTS[kind])
    with Session(seats) as session:
        assert session.get_one(Slot, 2).code == "b"
    assert purged_by(seats, SLOTS[kind], wide=WIDE) >= {"slots"}
    with Session(seats) as session:
        assert session.get(Slot, 2) is None


@pytest.mark.parametrize("kind", list(VALUES))
def test_a_write_in_the_value_of_an_attribute_is_refused_before_the_flush_writes(seats: Engine, kind: str) -> None:
    """A data-changing CTE may stand there: its rows are not those of the flush."""
    asked: list[str] = []
    event.listen(seats, "before_cursor_execute", lambda *arguments: asked.append(arguments[2]))
    with pytest.raises(UnknownRows, match=r"(?s)write inside the value of an attribute.*Guest"):
        purged_by(seats, VALUES[kind])
    assert not [statement for statement in asked if "gone" in statement]


def test_an_expression_without_a_write_is_no_matter(seats: Engine) -> None:
    """As before: the row is read again after the flush."""
    purged = purged_by(seats, lambda s: setattr(s.get(Seat, 1), "count", Seat.count + 1))
    assert purged == {"seat:1"}
