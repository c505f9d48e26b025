"""What a flush deletes without being told: orphans, and what goes or changes along with them, are purged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Connection, Engine, ForeignKey, Table, event, select
from sqlalchemy.orm import (
    DeclarativeBase,
    DynamicMapped,
    Mapped,
    Session,
    WriteOnlyMapped,
    mapped_column,
    relationship,
    sessionmaker,
)

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.store import obedient, tags_of


class Own(DeclarativeBase):
    pass


marks = Table(
    "marks",
    Own.metadata,
    Column("line_id", ForeignKey("line.id"), primary_key=True),
    Column("mark_id", ForeignKey("mark.id"), primary_key=True),
)


class Order(Own):
    __tablename__ = "order"
    id: Mapped[int] = mapped_column(primary_key=True)
    lines: Mapped[list[Line]] = relationship(back_populates="order", cascade="all, delete-orphan")
    sheet_id: Mapped[int | None] = mapped_column(ForeignKey("sheet.id"))
    sheet: Mapped[Sheet | None] = relationship(cascade="all, delete-orphan", single_parent=True)
    calls: DynamicMapped[Call] = relationship(cascade="all, delete-orphan")
    hints: WriteOnlyMapped[Hint] = relationship(cascade="all, delete-orphan", passive_deletes=True)


class Line(Own):
    """It refers back to its order, so that its removal changes it."""

    __tablename__ = "line"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("order.id"))
    count: Mapped[int] = mapped_column(default=0)
    order: Mapped[Order] = relationship(back_populates="lines")
    marks: Mapped[list[Mark]] = relationship(secondary=marks, back_populates="lines")
    parts: Mapped[list[Part]] = relationship(cascade="all, delete-orphan")


class Part(Own):
    """It goes with its line, by SQLAlchemy."""

    __tablename__ = "part"
    id: Mapped[int] = mapped_column(primary_key=True)
    line_id: Mapped[int] = mapped_column(ForeignKey("line.id"))


class Mark(Own):
    __tablename__ = "mark"
    id: Mapped[int] = mapped_column(primary_key=True)
    lines: Mapped[list[Line]] = relationship(secondary=marks, back_populates="marks")


class Shipment(Own):
    """It goes with its line, by the database."""

    __tablename__ = "shipment"
    id: Mapped[int] = mapped_column(primary_key=True)
    line_id: Mapped[int] = mapped_column(ForeignKey("line.id", ondelete="CASCADE"))


class Claim(Own):
    """It loses its part."""

    __tablename__ = "claim"
    id: Mapped[int] = mapped_column(primary_key=True)
    part_id: Mapped[int | None] = mapped_column(ForeignKey("part.id", ondelete="SET NULL"))


class Sheet(Own):
    __tablename__ = "sheet"
    id: Mapped[int] = mapped_column(primary_key=True)
    size: Mapped[int] = mapped_column(default=0)
    pages: Mapped[list[Page]] = relationship(cascade="all, delete-orphan")


class Page(Own):
    __tablename__ = "page"
    id: Mapped[int] = mapped_column(primary_key=True)
    sheet_id: Mapped[int] = mapped_column(ForeignKey("sheet.id"))


class Scan(Own):
    __tablename__ = "scan"
    id: Mapped[int] = mapped_column(primary_key=True)
    page_id: Mapped[int] = mapped_column(ForeignKey("page.id", ondelete="CASCADE"))


class Call(Own):
    __tablename__ = "call"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("order.id"))


class Record(Own):
    __tablename__ = "record"
    id: Mapped[int] = mapped_column(primary_key=True)
    call_id: Mapped[int] = mapped_column(ForeignKey("call.id", ondelete="CASCADE"))


class Hint(Own):
    __tablename__ = "hint"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("order.id", ondelete="CASCADE"))


class Answer(Own):
    __tablename__ = "answer"
    id: Mapped[int] = mapped_column(primary_key=True)
    hint_id: Mapped[int] = mapped_column(ForeignKey("hint.id", ondelete="CASCADE"))


class Node(Own):
    """A tree whose children are told of their parent in an UPDATE of its own."""

    __tablename__ = "node"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("node.id"))
    children: Mapped[list[Node]] = relationship(post_update=True)


TABLES: dict[str, Any] = {name: table for name, table in Own.metadata.tables.items() if name != "marks"}
TAGS: dict[Any, Any] = {mapper.class_: [f"{mapper.class_.__tablename__}:{{id}}"] for mapper in Own.registry.mappers}
Work = Callable[[Session], Any]


@pytest.fixture
def orders(tmp_path: Path) -> Iterator[Engine]:
    engine = obedient(tmp_path / "orders.db")
    Own.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Sheet(id=1, pages=[Page(id=1)]), Mark(id=1), Mark(id=2)])
        session.add_all([Node(id=1, children=[Node(id=2), Node(id=3)]), Node(id=4)])
        session.flush()
        session.add_all([Order(id=1, sheet_id=1), Order(id=2), Scan(id=1, page_id=1)])
        session.flush()
        session.add_all([Line(id=key, order_id=1, parts=[Part(id=key)]) for key in (1, 2)])
        session.add_all([Call(id=1, order_id=1), Hint(id=1, order_id=1), Hint(id=2, order_id=1)])
        session.flush()
        session.get_one(Line, 1).marks = [session.get_one(Mark, 1)]
        session.get_one(Line, 2).marks = [session.get_one(Mark, 2)]
        session.add_all([Shipment(id=1, line_id=1), Shipment(id=2, line_id=2), Claim(id=1, part_id=1)])
        session.add_all([Record(id=1, call_id=1), Answer(id=1, hint_id=1), Answer(id=2, hint_id=2)])
        session.commit()
    yield engine
    engine.dispose()


def _rows(connection: Connection) -> set[tuple[str, Any]]:
    """Each row by the tag that stands for it, and each side of each association row."""
    rows: set[tuple[str, Any]] = set()
    for name, table in TABLES.items():
        rows |= {(f"{name}:{row.id}", tuple(row)) for row in connection.execute(select(table))}
    for line, mark in connection.execute(select(marks)):
        rows |= {(f"line:{line}", mark), (f"mark:{mark}", line)}
    return rows


def purged_by(engine: Engine, work: Work) -> tuple[set[str], set[str]]:
    """The tags that a transaction purges, and those of the rows that it changed."""
    cache, sessions = HTTPCache(), sessionmaker(engine)
    collector = collect_changes(sessions, cache, TAGS)
    with engine.connect() as connection:
        before = _rows(connection)
    try:
        with capture_invalidations(cache) as receipts, sessions.begin() as session:
            loaded: list[Any] = []
            event.listen(session, "loaded_as_persistent", lambda _, target: loaded.append(target))
            work(session)
    finally:
        collector.stop()
    assert not any(receipt.everything for receipt in receipts)
    with engine.connect() as connection:
        changed = before ^ _rows(connection)
    return set().union(*tags_of(receipts)), {tag for tag, _ in changed}


def _order(session: Session) -> Order:
    return session.get_one(Order, 1)


def _drop_each(session: Session) -> None:
    order = _order(session)
    for line in list(order.lines):
        order.lines.remove(line)


def _change_and_drop(session: Session) -> None:
    order = _order(session)
    order.lines[0].count = 7
    del order.lines[:]


def _in_savepoints(session: Session) -> None:
    with session.begin_nested():
        _order(session).lines.pop()
    with session.begin_nested() as undone:
        _order(session).sheet = None
        session.flush()
        undone.rollback()
    _order(session).lines.clear()


def _change_and_drop_sheet(session: Session) -> None:
    session.get_one(Sheet, 1).size = 7
    session.get_one(Page, 1)
    _order(session).sheet = None


def _mark_and_drop(session: Session) -> None:
    order = _order(session)
    order.lines[0].marks.append(session.get_one(Mark, 2))
    session.flush()
    order.lines[0].marks.clear()
    order.lines.clear()


def _call_off(session: Session) -> None:
    order = _order(session)
    order.calls.remove(order.calls.one())


def _drop_hint(session: Session) -> None:
    _order(session).hints.remove(session.get_one(Hint, 1))


def _add_and_drop(session: Session) -> None:
    order, line = _order(session), Line(id=9)
    with session.no_autoflush:
        order.lines.append(line)
        order.lines.remove(line)
        order.lines.pop()


def _move(session: Session) -> None:
    with session.no_autoflush:
        session.get_one(Order, 2).lines = [_order(session).lines.pop()]


DROPS: dict[str, Work] = {
    "remove": _drop_each,
    "clear": lambda s: _order(s).lines.clear(),
    "pop": lambda s: _order(s).lines.pop(),
    "an empty list": lambda s: setattr(_order(s), "lines", []),
    "another list": lambda s: setattr(_order(s), "lines", [Line(id=9)]),
    "no parent": lambda s: setattr(s.get_one(Order, 1).lines[0], "order", None),
    "changed before": _change_and_drop,
    "in savepoints": _in_savepoints,
    "merge": lambda s: s.merge(Order(id=1, lines=[Line(id=1)])),
    "merge without any": lambda s: s.merge(Order(id=1, lines=[], sheet=None)),
    "single parent": lambda s: setattr(_order(s), "sheet", None),
    "single parent replaced": lambda s: setattr(_order(s), "sheet", Sheet(id=9)),
    "single parent changed before": _change_and_drop_sheet,
    "marked in between": _mark_and_drop,
    "dynamic": _call_off,
    "write only": _drop_hint,
    "new one": _add_and_drop,
    "moved": _move,
    "delete of the owner": lambda s: s.delete(_order(s)),
    "a child is told of its parent later": lambda s: s.get_one(Node, 4).children.append(s.get_one(Node, 1)),
    "a parent goes that children are told of later": lambda s: s.delete(s.get_one(Node, 1)),
}


@pytest.mark.parametrize("kind", list(DROPS))
def test_every_row_that_a_flush_takes_along_is_purged(orders: Engine, kind: str) -> None:
    """Whichever way an object loses its parent, each row that differs after the commit has its tags purged."""
    purged, changed = purged_by(orders, DROPS[kind])
    assert changed
    assert not changed - purged
