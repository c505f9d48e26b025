"""Classes that are mapped to a query over a table which another class is mapped to."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Column, Integer, StaticPool, String, Table, create_engine, func, select, union_all
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import capture_invalidations

Query = Callable[[Any], Any]
SHOWING: dict[str, Query] = {
    "a select": lambda table: select(table.c.id, table.c.name).where(table.c.kind == "a").subquery(),
    "an alias": lambda table: table.alias(),
}
HIDING: dict[str, Query] = {
    "groups": lambda table: select(table.c.name, func.count().label("id")).group_by(table.c.name).subquery(),
}
SHOWING["a union"] = lambda table: union_all(
    select(table.c.id, table.c.name), select(table.c.id + 100, table.c.kind)
).subquery()


def purged_by_one_change(query: Query, **options: Any) -> tuple[set[str], bool]:
    """What the change of one of 50 rows purges: tags, and whether everything."""

    class Base(DeclarativeBase):
        pass

    columns: list[Any] = [Column("id", Integer, primary_key=True), Column("name", String), Column("kind", String)]
    table = Table("thing", Base.metadata, *columns)
    shown = query(table)
    thing: Any = type("Thing", (Base,), {"__table__": table})
    view: Any = type(
        "View", (Base,), {"__table__": shown, "__mapper_args__": {"primary_key": [shown.c.id, shown.c.name]}}
    )
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(thing(id=number, name=f"n{number}", kind="a") for number in range(50))
        session.commit()
    cache, sessions = HTTPCache(), sessionmaker(engine)
    wide = {view: options["wide"]} if options else None
    collector = collect_changes(sessions, cache, {thing: ["thing:{id}"], view: ["view:{name}"]}, wide=wide)
    with warnings.catch_warnings(), capture_invalidations(cache) as receipts:
        # SQLAlchemy warns of a query over two of them that nothing joins.
        warnings.simplefilter("error")
        with sessions.begin() as session:
            session.get_one(thing, 1).name = "new"
    collector.stop()
    engine.dispose()
    return {tag for each in receipts for tag in each.tags}, any(each.everything for each in receipts)


@pytest.mark.parametrize("name", SHOWING)
def test_a_query_that_shows_the_key_of_its_rows(name: str) -> None:
    """The changed row's tags are purged, and those of no other row."""
    assert purged_by_one_change(SHOWING[name]) == ({"thing:1", "view:n1", "view:new"}, False)


def test_a_query_that_hides_the_key_of_its_rows() -> None:
    """Any of its rows may have changed: its wide tags are purged, or everything."""
    assert purged_by_one_change(HIDING["groups"])[1]
    assert purged_by_one_change(HIDING["groups"], wide="views") == ({"thing:1", "views"}, False)
