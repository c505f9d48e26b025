"""A listener to statements that the app registers after `collect_changes` comes before the watch, and decides what is run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from sqlalchemy import delete, event, insert, select, text, update
from sqlalchemy.orm import Session, sessionmaker, with_loader_criteria

from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.store import Brand, Label, Product, Store, tags_of

Work = Callable[[Session], Any]
STATEMENTS: dict[str, tuple[Work, set[str]]] = {
    "update": (
        lambda s: s.execute(update(Product).where(Product.id == 1).values(brand_id=2)),
        {"product:1", "brand:1", "brand:2", "products"},
    ),
    "update by key": (
        lambda s: s.execute(update(Product), [{"id": 1, "brand_id": 2}]),
        {"product:1", "brand:1", "brand:2", "products"},
    ),
    "delete": (lambda s: s.execute(delete(Label).where(Label.id == 2)), {"label:2"}),
    "insert": (lambda s: s.execute(insert(Label), [{"text": "a"}, {"text": "b"}]), {"label:3", "label:4"}),
    "scalar": (
        lambda s: s.scalar(update(Label).where(Label.id == 2).values(text="c").returning(Label.text)),
        {"label:2"},
    ),
    "query": (lambda s: s.query(Label).filter(Label.id == 2).delete(), {"label:2"}),
}


@pytest.mark.parametrize("kind", list(STATEMENTS))
def test_it_may_set_up_the_transaction(store: Store, kind: str) -> None:
    """The connection has not begun yet, so its isolation level is the one that the listener names."""
    work, expected = STATEMENTS[kind]

    def set_up(state: Any) -> None:
        if not state.session.in_transaction():
            state.session.connection(execution_options={"isolation_level": "READ UNCOMMITTED"})

    event.listen(store.sessions, "do_orm_execute", set_up)
    with store.purged() as tags, store.sessions() as session:
        work(session)
        assert session.connection().get_isolation_level() == "READ UNCOMMITTED"
        session.commit()
    assert tags == expected


@pytest.mark.parametrize("kind", list(STATEMENTS))
def test_the_app_hears_in_the_order_that_it_hears_in_without_a_watch(
    make_store: Callable[..., Store], kind: str
) -> None:
    """Each listener is called once, and the session begins and flushes after the one to statements."""
    work, _ = STATEMENTS[kind]
    heard: list[list[str]] = []
    for watched in (True, False):
        store, calls = make_store(), list[str]()
        if not watched:
            store.collector.stop()
        for name in ("do_orm_execute", "after_begin", "before_flush", "after_flush", "after_commit"):
            event.listen(store.sessions, name, lambda *_, name=name, calls=calls: calls.append(name))
        with store.sessions() as session:
            session.add(Brand(id=9))
            work(session)
            session.commit()
        heard.append(calls)
    assert heard[0] == heard[1]
    assert heard[0][0] == "do_orm_execute"


def test_it_may_send_a_statement_to_another_database(make_store: Callable[..., Store]) -> None:
    """The rows are looked up where they are changed."""
    store, other = make_store(), make_store()
    with other.sessions.begin() as session:
        session.get_one(Product, 1).brand_id = 2

    def route(state: Any) -> None:
        if state.is_update:
            state.bind_arguments["bind"] = other.engine

    event.listen(store.sessions, "do_orm_execute", route)
    with store.purged() as tags, store.sessions.begin() as session:
        session.execute(update(Product).where(Product.brand_id == 2).values(brand_id=1))
    assert tags == {"product:1", "product:3", "brand:1", "brand:2", "products"}


def test_it_may_change_the_statement(store: Store) -> None:
    """The rows that it changes then are known."""

    def change(state: Any) -> None:
        if state.is_update:
            state.statement = update(Product).values(brand_id=2)
        if state.is_delete:
            state.statement = state.statement.options(with_loader_criteria(Label, Label.id == 2))

    event.listen(store.sessions, "do_orm_execute", change)
    with store.purged() as tags, store.sessions.begin() as session:
        session.execute(update(Product).where(Product.id == 1).values(brand_id=2))
        assert session.execute(delete(Label)).rowcount == 1  # type: ignore[attr-defined]
    assert tags == {"product:1", "product:2", "product:3", "brand:1", "brand:2", "products", "label:2"}


@pytest.mark.parametrize("released", [True, False])
def test_it_may_run_the_statement_in_a_savepoint_and_again(store: Store, *, released: bool) -> None:
    """What is rolled back to the savepoint purges nothing, and each run counts."""

    def twice(state: Any) -> Any:
        if not state.is_update:
            return None
        point = state.session.begin_nested()
        result = state.invoke_statement()
        if released:
            point.commit()
            return result
        point.rollback()
        return state.invoke_statement(statement=update(Label).where(Label.id == 2).values(text="b"))

    event.listen(store.sessions, "do_orm_execute", twice)
    with store.purged() as tags, store.sessions() as session:
        session.add(Brand(id=9))
        session.flush()
        session.execute(update(Label).where(Label.id == 1).values(text="a"))
        session.commit()
    assert tags == {"brand:9", "label:1" if released else "label:2"}


@pytest.mark.parametrize("wide", [True, False])
def test_it_may_run_something_else_which_is_not_known(make_store: Callable[..., Store], *, wide: bool) -> None:
    """The wide tags of the app's own statement are purged, or everything, where it runs that behind the session's back."""
    store = make_store(**({"wide": {Label: "all-labels"}} if wide else {}))

    def instead(state: Any) -> Any:
        if state.is_update:
            return state.session.connection().execute(text("UPDATE label SET text = 'b'"))
        return None

    event.listen(store.sessions, "do_orm_execute", instead)
    with capture_invalidations(store.cache) as receipts, store.sessions.begin() as session:
        assert session.execute(update(Label).where(Label.id == 2).values(text="a")).rowcount == 2  # type: ignore[attr-defined]
    assert [receipt.everything for receipt in receipts] == [not wide]
    assert tags_of(receipts) == [{"all-labels"} if wide else set()]


def test_it_may_give_a_result_without_a_database(store: Store) -> None:
    """Nothing is begun, so nothing is changed, and nothing is purged."""
    with sessionmaker(store.engine)() as alone:
        canned: Any = alone.execute(select(Label.id)).freeze()
    event.listen(store.sessions, "do_orm_execute", lambda state: canned() if state.is_update else None)
    with capture_invalidations(store.cache) as receipts, store.sessions() as session:
        assert session.execute(update(Label).where(Label.id == 2).values(text="a")).all() == [(1,), (2,)]
        session.commit()
    assert receipts == []


@pytest.mark.parametrize("kind", list(STATEMENTS))
def test_two_that_watch_both_come_after_it(store: Store, kind: str) -> None:
    """Wherever it is registered, each hears of the statement once, and it too."""
    work, expected = STATEMENTS[kind]
    heard: list[int] = []
    for number in (1, 2):
        event.listen(store.sessions, "do_orm_execute", partial(_note, heard, number))
        other = collect_changes(store.sessions, store.cache, {Label: "other:{id}", Product: "other:{id}"})
    with capture_invalidations(store.cache) as receipts, store.sessions.begin() as session:
        work(session)
    other.stop()
    assert heard == [1, 2]
    assert set().union(*tags_of(receipts)) >= expected
    assert any("other:" in tag for receipt in receipts for tag in receipt.tags)


def _note(heard: list[int], number: int, _: object) -> None:
    heard.append(number)
