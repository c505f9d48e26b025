"""The keys of rows whose statement returns something else: under another name, worked over, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import ForeignKey, String, cast, create_engine, delete, func, select, text, type_coerce, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker
from sqlalchemy.pool import StaticPool

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import UnknownRows, collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.store import tags_of


class Base(DeclarativeBase):
    pass


class Item(Base):
    """Its attributes have other names than its columns."""

    __tablename__ = "item"
    id: Mapped[int] = mapped_column("number", primary_key=True)
    title: Mapped[str] = mapped_column("name", default="")


class Seat(Base):
    __tablename__ = "seat"
    row: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column("place", primary_key=True, server_default="7")
    title: Mapped[str] = mapped_column(default="")


class Place(Base):
    __tablename__ = "place"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    title: Mapped[str] = mapped_column(default="")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "place"}  # noqa: RUF012


class Hall(Place):
    __tablename__ = "hall"
    id: Mapped[int] = mapped_column(ForeignKey("place.id"), primary_key=True)
    size: Mapped[int] = mapped_column(default=3)
    __mapper_args__ = {"polymorphic_identity": "hall"}  # noqa: RUF012


TAGS = {Item: ["item:{id}:{title}"], Seat: ["seat:{row}-{id}"], Place: ["place:{id}:{title}"]}
ITEM: Any = Item.__table__
Columns = Callable[[Any, Any], list[Any]]
# From the key's column and another one.
RETURNED: dict[str, Columns] = {
    "the key under another name": lambda key, title: [key.label("pk")],
    "each under the other's name": lambda key, title: [key.label("name"), title.label("number")],
    "each under the other's attribute": lambda key, title: [key.label("title"), title.label("id")],
    "another column under the key's name": lambda key, title: [title.label("number")],
    "another column under the key's attribute": lambda key, title: [title.label("id")],
    "names of whole columns": lambda key, title: [title.label("item_number"), key.label("item_name")],
    "another column": lambda key, title: [title],
    "the key twice": lambda key, title: [key.label("a"), key.label("b")],
    "the key, and again": lambda key, title: [key, key.label("again")],
    "the key as a text": lambda key, title: [cast(key, String).label("number")],
    "the key as another type": lambda key, title: [type_coerce(key, String).label("id")],
    "a function of the key": lambda key, title: [(key + 100).label("number")],
    "an expression without a name": lambda key, title: [title + "x"],
    "a function of another column": lambda key, title: [func.coalesce(title, "x").label("number")],
    "a name of our own": lambda key, title: [title.label("cacheinval_0")],
}
TWO: list[Any] = [{"title": "a"}, {"title": "b"}]
NAMED = [{"name": "a"}, {"name": "b"}]
SEATS = [{"row": 4, "title": "a"}, {"row": 5, "title": "b"}]
INTO: dict[str, tuple[Callable[[Columns], Any], Any]] = {
    "one": (lambda of: insert(Item).values(title="a").returning(*of(Item.id, Item.title)), None),
    "one in a list": (lambda of: insert(Item).returning(*of(Item.id, Item.title)), TWO[:1]),
    "several": (lambda of: insert(Item).returning(*of(Item.id, Item.title)), TWO),
    "several, in order": (
        lambda of: insert(Item).returning(*of(Item.id, Item.title), sort_by_parameter_order=True), TWO,
    ),
    "several values": (lambda of: insert(Item).values(TWO).returning(*of(Item.id, Item.title)), None),
    "from a query": (
        lambda of: insert(Item).from_select([Item.title], select(Item.title)).returning(*of(Item.id, Item.title)), None,
    ),
    "upsert": (
        lambda of: (
            insert(Item).values([{"id": 1, "title": "a"}, {"id": 9, "title": "b"}])
            .on_conflict_do_nothing().returning(*of(Item.id, Item.title))
        ), None,
    ),
    "table": (lambda of: insert(ITEM).values(name="a").returning(*of(ITEM.c.number, ITEM.c.name)), None),
    "table, several": (lambda of: insert(ITEM).returning(*of(ITEM.c.number, ITEM.c.name)), NAMED),
    "half of a key": (lambda of: insert(Seat).values(row=4).returning(Seat.row, *of(Seat.id, Seat.title)), None),
    "the other half": (lambda of: insert(Seat).returning(*of(Seat.id, Seat.title)), SEATS),
    "of two tables": (lambda of: insert(Hall).returning(*of(Hall.id, Hall.title)), TWO),
    "of two tables, the second": (lambda of: insert(Hall).returning(*of(Hall.id, Hall.size + 1)), TWO),
    "of the upper table": (lambda of: insert(Place).returning(*of(Place.id, Place.title)), TWO),
    "update": (
        lambda of: update(Item).where(Item.id < 3).values(title=Item.title + "!").returning(*of(Item.id, Item.title)),
        None,
    ),
    "update of the table": (
        lambda of: update(ITEM).where(ITEM.c.number < 3).values(name="z").returning(*of(ITEM.c.number, ITEM.c.name)),
        None,
    ),
    "delete": (lambda of: delete(Item).where(Item.id < 3).returning(*of(Item.id, Item.title)), None),
    "delete in the table": (
        lambda of: delete(ITEM).where(ITEM.c.number < 3).returning(*of(ITEM.c.number, ITEM.c.name)), None,
    ),
}  # fmt: skip
_SYNC = {"synchronize_session": False}


def _rows(engine: Any) -> dict[Any, str]:
    with Session(engine) as session:
        tagged: dict[Any, str] = {}
        for item in session.scalars(select(Item)):
            tagged["item", item.id] = f"item:{item.id}:{item.title}"
        for seat in session.scalars(select(Seat)):
            tagged["seat", seat.row, seat.id] = f"seat:{seat.row}-{seat.id}"
        for place in session.scalars(select(Place)):
            tagged["place", place.id] = f"place:{place.id}:{place.title}"
        return tagged


def _seen(result: Any, asked: list[Any]) -> Any:
    """What an app finds in a result: its names, and each row by its order, by these names and by what was asked for."""
    names, rows = list(result.keys()), result.all()
    by_name = [[getattr(row, name) for name in names] for row in rows]
    return names, [tuple(row) for row in rows], by_name, [[row._mapping[one] for one in asked] for row in rows]


def _run(statement: Any, parameters: Any, *, watched: bool, again: int = 1) -> tuple[Any, set[str], set[str]]:
    """What the app sees of it, the tags of the rows that differ after it, and those that are purged."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    sessions, cache = sessionmaker(engine), HTTPCache()
    with sessions.begin() as session:
        session.add_all(Item(id=number, title=f"t{number}") for number in (1, 2, 3))
    before = _rows(engine)
    collector = collect_changes(sessions, cache, TAGS) if watched else None
    seen: list[Any] = []
    try:
        with capture_invalidations(cache) as receipts, sessions.begin() as session:
            for _ in range(again):
                made = statement()
                given = () if parameters is None else (parameters,)
                seen.append(_seen(session.execute(made, *given, execution_options=_SYNC), list(made._returning)))
        after = _rows(engine)
    finally:
        if collector is not None:
            collector.stop()
        engine.dispose()
    changed = {
        tag for key in {*before, *after} if before.get(key) != after.get(key)
        for tag in (before.get(key), after.get(key)) if tag is not None
    }  # fmt: skip
    return seen, changed, set[str]().union(*tags_of(receipts))


@pytest.mark.parametrize("into", INTO)
@pytest.mark.parametrize("returned", RETURNED)
def test_rows_are_purged_whatever_their_statement_returns(returned: str, into: str) -> None:
    """The key is that of the row, and the app sees what it sees without a watch, by every name that it gives."""
    made, parameters = INTO[into]
    plain, watched = (
        _run(lambda: made(RETURNED[returned]), parameters, watched=each) for each in (False, True)
    )  # fmt: skip
    assert watched[:2] == plain[:2]
    assert watched[1]
    assert watched[2] == watched[1]


@pytest.mark.parametrize("returned", RETURNED)
def test_a_statement_that_was_compiled_before_returns_the_same(returned: str) -> None:
    """Its columns are found by those of the new one."""

    def made() -> Any:
        return insert(ITEM).values(name="a").returning(*RETURNED[returned](ITEM.c.number, ITEM.c.name))

    plain, watched = (_run(made, None, watched=each, again=2) for each in (False, True))
    assert watched[0] == plain[0]
    assert watched[2] == {"item:4:a", "item:5:a"}


@pytest.mark.parametrize(
    "columns",
    [
        [text("*")],
        [Item.id.label("x"), Item.title.label("x")],
        [Item.title + "a", Item.title + "b"],
        [func.max(Item.id), func.max(Item.title)],
    ],
    ids=["text", "one label for two", "two without a name", "two of one function"],
)
def test_what_takes_no_more_columns_is_refused(columns: list[Any]) -> None:
    """Two columns of one name, or text, in a `RETURNING` that does not show the key itself."""
    with pytest.raises(UnknownRows, match="returns no primary keys"):
        _run(lambda: insert(Item).values(title="a").returning(*columns), None, watched=True)
