"""Rows that `values()` takes by their order: tuples and lists, one or several, in every INSERT that SQLAlchemy has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from sqlalchemy import Column, ForeignKey, Insert, Table, create_engine, func, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, sessionmaker
from sqlalchemy.pool import StaticPool

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.store import tags_of


class Base(DeclarativeBase):
    pass


hung = Table(
    "hung",
    Base.metadata,
    Column("item_id", ForeignKey("item.number"), primary_key=True),
    Column("sign_id", ForeignKey("sign.id"), primary_key=True),
)


class Item(Base):
    """Its attributes have other names than its columns."""

    __tablename__ = "item"
    id: Mapped[int] = mapped_column("number", primary_key=True)
    title: Mapped[str] = mapped_column("name", default="")
    signs: Mapped[list[Sign]] = relationship(secondary=hung)


class Sign(Base):
    __tablename__ = "sign"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(default="")


class Unlisted(Base):
    __tablename__ = "unlisted"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(default="")


class Pair(NamedTuple):
    number: int
    name: str


TAGS = {Item: ["item:{id}"], Sign: ["sign:{id}"]}
ITEM: Any = Item.__table__
ROWS: dict[str, Any] = {
    "tuples": [(1, "a"), (2, "b")],
    "lists": [[1, "a"], [2, "b"]],
    "named tuples": [Pair(1, "a"), Pair(2, "b")],
    "a tuple of tuples": ((1, "a"), (2, "b")),
    "one in a list": [(1, "a")],
    "a tuple": (1, "a"),
    "a list": [1, "a"],
    "an expression": [(1, func.lower("A")), (2, "b")],
    "a key that the database works out": [(select(func.count() + 7).scalar_subquery(), "a"), (2, "b")],
    "fewer than columns": [(1,), (2,)],
}
INTO: dict[str, Callable[[Any], Any]] = {
    "the class": lambda rows: insert(Item).values(rows),
    "the table": lambda rows: insert(ITEM).values(rows),
    "over what is there": lambda rows: insert(Item).values(rows).on_conflict_do_nothing(),
    "over what is there, set": lambda rows: (
        insert(Item).values(rows).on_conflict_do_update(["number"], set_={"name": "again"})
    ),
    "returning": lambda rows: insert(Item).values(rows).returning(Item.id),
    "returning objects": lambda rows: insert(Item).values(rows).returning(Item),
    "a class without tags": lambda rows: insert(Unlisted).values(rows),
}


def run(statement: Insert, there: list[Any], *, watched: bool) -> tuple[Any, Any, set[str]]:
    """What the app sees of it, the rows there are then, and the tags that are purged."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    cache, sessions = HTTPCache(), sessionmaker(engine)
    with sessions.begin() as session:
        session.add_all(Item(id=number, title=title) for number, title in there)
    collector = collect_changes(sessions, cache, TAGS) if watched else None
    try:
        with capture_invalidations(cache) as receipts, sessions() as session:
            seen: Any
            try:
                result: Any = session.execute(statement)
                seen = [getattr(row, "id", row) for row in result.all()] if result.returns_rows else result.rowcount
                session.commit()
            except Exception as error:  # noqa: BLE001 - both ways have to fail alike
                seen = type(error)
                session.rollback()
        with Session(engine) as session:
            rows = [session.execute(select(table).order_by(*table.c)).all() for table in Base.metadata.sorted_tables]
        return seen, rows, set[str]().union(*tags_of(receipts))
    finally:
        if collector is not None:
            collector.stop()
        engine.dispose()


@pytest.mark.parametrize("there", [[], [(2, "there")]], ids=["none is there", "one is there"])
@pytest.mark.parametrize("into", INTO)
@pytest.mark.parametrize("name", ROWS)
def test_rows_in_order_are_written_and_purged_as_named_ones_are(name: str, into: str, there: list[Any]) -> None:
    """The app sees what it sees without a watch, its errors too, and each row that is new or changed is purged."""
    plain, watched = (run(INTO[into](ROWS[name]), there, watched=each) for each in (False, True))
    assert watched[:2] == plain[:2]
    items = plain[1][[table.name for table in Base.metadata.sorted_tables].index("item")]
    assert watched[2] == {f"item:{number}" for number, title in items if (number, title) not in there}


@pytest.mark.parametrize("rows", [[(1, 3), (2, 3)], [[1, 3], [2, 3]], (1, 3), [(1, 3)]])
def test_rows_in_order_of_a_link_purge_both_its_sides(rows: Any) -> None:
    """A link's own columns name the rows that it joins."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    cache, sessions = HTTPCache(), sessionmaker(engine)
    with sessions.begin() as session:
        session.add_all([Item(id=1), Item(id=2), Sign(id=3)])
    collector = collect_changes(sessions, cache, TAGS)
    with capture_invalidations(cache) as receipts, sessions.begin() as session:
        session.execute(insert(hung).values(rows))
    linked = {number for number, _ in rows} if isinstance(rows[0], list | tuple) else {rows[0]}
    assert set[str]().union(*tags_of(receipts)) == {"sign:3", *(f"item:{number}" for number in linked)}
    collector.stop()
    engine.dispose()
