"""Rows of an INSERT that are no list: SQLAlchemy goes through them once, and so does a watched session."""

from __future__ import annotations

from collections import UserDict, deque
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

import pytest
from sqlalchemy import bindparam, delete, event, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.orm import Session

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.store import TAGS, Brand, Label, Product, Store, labels, tags_of

Rows = list[dict[str, Any]]


class Own:
    """It can be gone through again, and says nothing of its length."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._rows)


def _filled_again(rows: Rows) -> Iterator[dict[str, Any]]:
    """One dictionary for all rows."""
    one: dict[str, Any] = {}
    for row in rows:
        one.clear()
        one.update(row)
        yield one


FORMS: dict[str, Callable[[Rows], Any]] = {
    "a generator": lambda rows: (row for row in rows),
    "an iterator": iter,
    "a map": lambda rows: map(dict, rows),
    "one dictionary, filled again": _filled_again,
    "mappings of other kinds": lambda rows: (MappingProxyType(row) for row in rows),
    "dictionaries of the user's": lambda rows: map(UserDict, rows),
    "pairs": lambda rows: (row.items() for row in rows),
    "a list of pairs": lambda rows: [tuple(row.items()) for row in rows],
    "a deque": deque,
    "the values of a dictionary": lambda rows: dict(enumerate(rows)).values(),
    "something of the app's": Own,
    "a tuple": tuple,
}
_LABEL: Any = Label.__table__
STATEMENTS: dict[str, Callable[[], Any]] = {
    "insert": lambda: insert(Label),
    "returning": lambda: insert(Label).returning(Label.id, Label.text),
    "upsert": lambda: upsert(Label).on_conflict_do_nothing(),
    "with a value for all": lambda: insert(Label).values(text="all"),
}
KEYED: Rows = [{"id": 7, "text": "a"}, {"id": 9, "text": "b"}]
KEYLESS: Rows = [{"text": "a"}, {"text": "b"}]


def _run(store: Store, statement: Any, given: Any) -> Any:
    """The rows that the app is given, or the kind of the error, and all rows afterwards."""
    seen: Any = None
    with store.sessions() as session:
        try:
            result = session.execute(statement, given)
            seen = [tuple(row) for row in result.all()] if statement._returning else None
            session.commit()
        except Exception as error:  # noqa: BLE001 - both ways have to fail alike
            seen = type(error)
            session.rollback()
    with Session(store.engine) as session:
        return seen, session.execute(select(_LABEL).order_by(_LABEL.c.id)).all()


@pytest.mark.parametrize("watched", [True, False], ids=["with tags", "without tags"])
@pytest.mark.parametrize("rows", [KEYED, KEYLESS, []], ids=["with keys", "without keys", "none"])
@pytest.mark.parametrize("kind", STATEMENTS)
@pytest.mark.parametrize("form", FORMS)
def test_the_same_rows_are_written_as_without_a_watch(
    make_store: Callable[..., Store], form: str, kind: str, rows: Rows, watched: bool
) -> None:
    """None is lost on the way, also of a class without tags, none is made up, and each is purged."""
    alone, store = make_store(), make_store(TAGS if watched else {Product: ["product:{id}"]})
    alone.collector.stop()
    plain = _run(alone, STATEMENTS[kind](), FORMS[form](rows))
    with store.purged() as tags:
        assert _run(store, STATEMENTS[kind](), FORMS[form](rows)) == plain
    assert tags == ({f"label:{number}" for number, _ in plain[1] if number > 2} if watched else set())


@pytest.mark.parametrize("form", [form for form in FORMS if form != "a tuple"])
def test_other_statements_refuse_them_as_sqlalchemy_does(store: Store, form: str) -> None:
    """Nothing is run, and nothing is purged, where SQLAlchemy takes no such parameters."""
    statements: list[tuple[Any, Rows]] = [
        (insert(_LABEL), KEYED),
        (insert(labels), [{"product_id": 3, "label_id": 1}, {"product_id": 3, "label_id": 2}]),
        (update(_LABEL).where(_LABEL.c.id == bindparam("key")).values(text="a"), [{"key": 1}, {"key": 2}]),
        (delete(_LABEL).where(_LABEL.c.id == bindparam("key")), [{"key": 1}, {"key": 2}]),
    ]
    for statement, rows in statements:
        with store.purged() as tags, store.sessions.begin() as session, pytest.raises(ArgumentError):
            session.execute(statement, FORMS[form](rows))
        assert tags == set()


def test_they_are_made_after_the_flush(store: Store) -> None:
    """A generator that takes the key of a new object finds it, as without a watch."""
    with store.purged() as tags, store.sessions.begin() as session:
        brand = Brand()
        session.add(brand)
        given: Any = ({"id": number, "brand_id": brand.id} for number in (8, 9))
        session.execute(insert(Product), given)
        assert set(session.scalars(select(Product.brand_id).where(Product.id > 3))) == {brand.id}
        expected = {"product:8", "product:9", "products", f"brand:{brand.id}"}
    assert tags == expected


def test_a_listener_behind_the_watch_is_given_them_as_they_are(store: Store) -> None:
    """It may replace them, and what it makes of them is written and purged."""

    def replace(state: Any) -> None:
        if state.is_insert:
            assert next(state.parameters)["text"] == "a"
            state.parameters = ({**row, "id": row["id"] + 1} for row in state.parameters)

    event.listen(store.sessions, "do_orm_execute", replace)
    with store.purged() as tags, store.sessions.begin() as session:
        session.execute(insert(Label), FORMS["a generator"](KEYED))
    assert tags == {"label:10"}


def test_two_watches_share_them(store: Store) -> None:
    """Each of two collectors purges every row."""
    other = HTTPCache()
    collector = collect_changes(store.sessions, other, {Label: ["again:{id}"]})
    with capture_invalidations(other) as receipts, store.purged() as tags, store.sessions.begin() as session:
        session.execute(insert(Label), FORMS["a generator"](KEYLESS))
    assert tags == {"label:3", "label:4"}
    assert set[str]().union(*tags_of(receipts)) == {"again:3", "again:4"}
    collector.stop()


@pytest.mark.anyio
async def test_an_asynchronous_session_takes_them(async_engine: AsyncEngine, cache: HTTPCache) -> None:
    """The same through `AsyncSession`."""
    sessions = async_sessionmaker(async_engine)
    collector = collect_changes(sessions, cache, TAGS)
    async with cache:
        with capture_invalidations(cache) as receipts:
            async with sessions.begin() as session:
                made = await session.scalars(insert(Label).returning(Label), FORMS["an iterator"](KEYED))
                assert sorted(label.id for label in made) == [7, 9]
    assert set[str]().union(*tags_of(receipts)) == {"label:7", "label:9"}
    collector.stop()
