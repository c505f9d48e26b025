"""A row that is written, and that its key does not find again, changes nobody knows which tags."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, Numeric, create_engine, delete, insert, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import capture_invalidations


class Base(DeclarativeBase):
    pass


class Ticket(Base):
    """The database gives each new one, and each that is renamed, another number."""

    __tablename__ = "ticket"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")
    kind: Mapped[str] = mapped_column(default="ticket")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "ticket"}  # noqa: RUF012


class Season(Ticket):
    """One of another class in the same table."""

    __mapper_args__ = {"polymorphic_identity": "season"}  # noqa: RUF012


class Price(Base):
    """Its key is written in several ways."""

    __tablename__ = "price"
    amount: Mapped[Decimal] = mapped_column(Numeric(6, 2), primary_key=True)


_MOVES = "CREATE TRIGGER on_{0} AFTER {0} ON ticket WHEN new.id < 1000 BEGIN {1}; END"
_AWAY = "UPDATE ticket SET id = id + 1000 WHERE id = new.id"
NAMED = {Ticket: ["ticket:{id}", "named:{name}"]}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path / 'tickets.db'}")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Ticket(id=1, name="a"), Price(amount=Decimal("1.50"))])
        session.commit()
    with engine.begin() as connection:
        for kind in ("insert", "update"):
            connection.exec_driver_sql(_MOVES.format(kind, _AWAY))
    yield engine
    engine.dispose()


def purged_by(engine: Engine, work: Callable[[Session], Any], tags: Any, **options: Any) -> tuple[bool, set[str]]:
    """Whether a transaction purges everything, and its tags."""
    cache, sessions = HTTPCache(), sessionmaker(engine)
    collector = collect_changes(sessions, cache, tags, **options)
    try:
        with capture_invalidations(cache) as receipts, sessions.begin() as session:
            work(session)
    finally:
        collector.stop()
    return any(each.everything for each in receipts), {tag for each in receipts for tag in each.tags}


WRITES: dict[str, Callable[[Session], Any]] = {
    "insert with values": lambda session: session.execute(insert(Ticket).values(id=5, name="b")),
    "insert with parameters": lambda session: session.execute(insert(Ticket), [{"id": 5}, {"id": 6}]),
    "insert into the table": lambda session: session.execute(insert(Ticket.__table__), {"id": 5, "name": "b"}),  # type: ignore[arg-type]
    "insert without a key": lambda session: session.execute(insert(Ticket).values(name="b")),
    "insert of another class": lambda session: session.execute(insert(Season), [{"id": 5}]),
    "mappings": lambda session: session.bulk_insert_mappings(Ticket.__mapper__, [{"id": 5, "name": "b"}]),
    "objects": lambda session: session.bulk_save_objects([Ticket(id=5, name="b")]),
    "update": lambda session: session.execute(update(Ticket).where(Ticket.id == 1).values(name="c")),
    "update of what is in no tag": lambda session: session.execute(update(Ticket).values(kind="season")),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_written_row_that_is_not_found_purges_everything(
    engine: Engine, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever way it is written; a warning says what helps."""
    everything, _ = purged_by(engine, WRITES[name], NAMED)
    assert everything
    assert "its key does not find it again: give" in caplog.text


@pytest.mark.parametrize("name", WRITES)
def test_it_purges_the_wide_tags_of_its_class(engine: Engine, name: str) -> None:
    """They stand for any row, and nothing else is purged."""
    assert purged_by(engine, WRITES[name], NAMED, wide={Ticket: "tickets"}) == (False, {"tickets"})


def test_a_flush_of_a_row_that_is_not_found(engine: Engine) -> None:
    """Its tags are a function's, so that the object alone does not tell them."""
    tags = {Ticket: lambda ticket: [f"named:{ticket.name}"]}
    everything, _ = purged_by(engine, lambda session: session.add(Ticket(id=5, name="b")), tags)
    assert everything
    wide = purged_by(engine, lambda session: session.add(Ticket(id=6, name="b")), tags, wide={Ticket: "tickets"})
    assert wide == (False, {"tickets"})


def test_a_row_whose_tags_only_a_class_below_has(engine: Engine) -> None:
    """Whether it is of that class, nobody knows either."""
    work = WRITES["insert of another class"]
    assert purged_by(engine, work, {Ticket: ["ticket:{id}"], Season: ["named:{name}"]})[0]


def test_rows_that_are_found_purge_their_own_tags(engine: Engine) -> None:
    """A written row is there nearly always."""
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER on_insert")
    assert purged_by(engine, WRITES["insert with values"], NAMED) == (False, {"ticket:5", "named:b"})
    assert purged_by(engine, _two, NAMED) == (False, {"ticket:6", "named:c", "ticket:7", "named:d"})


def _two(session: Session) -> None:
    session.bulk_insert_mappings(Ticket.__mapper__, [{"id": 6, "name": "c"}, {"id": 7, "name": "d"}])


def test_the_wide_tags_of_a_row_whose_key_has_several_spellings(engine: Engine) -> None:
    """The end of such a row purges them."""
    end = purged_by(
        engine, lambda session: session.delete(session.get_one(Price, Decimal("1.5"))), None, wide={Price: "prices"}
    )
    assert end == (False, {"prices"})


def test_the_wide_tags_of_a_class_below(engine: Engine) -> None:
    """A statement on the class above, which has none, may mean its rows."""
    with Session(engine) as session:
        session.execute(update(Ticket.__table__).values(kind="season", id=1001))  # type: ignore[arg-type]
        session.commit()
    end = purged_by(engine, lambda session: session.execute(delete(Ticket)), None, wide={Season: "seasons"})
    assert end == (False, {"seasons"})
