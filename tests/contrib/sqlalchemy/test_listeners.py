"""What the app listens to is the same with a watch: no event of sessions, transactions or queries comes besides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest
from sqlalchemy import delete, event, insert, literal, select, update
from sqlalchemy.orm import Session, object_session, sessionmaker, with_loader_criteria

from tests.contrib.sqlalchemy.store import Brand, Label, Note, Product, Review, Store, labels

SESSION_EVENTS = (
    "after_begin",
    "after_transaction_create",
    "after_transaction_end",
    "before_commit",
    "after_commit",
    "after_rollback",
    "after_soft_rollback",
    "before_flush",
    "after_flush",
    "do_orm_execute",
    "before_attach",
    "after_attach",
    "pending_to_persistent",
    "detached_to_persistent",
    "loaded_as_persistent",
    "persistent_to_detached",
)


@contextmanager
def listening(target: Any, name: str, listener: Callable[..., Any]) -> Iterator[None]:
    """Listen while the block runs."""
    event.listen(target, name, listener)
    try:
        yield
    finally:
        event.remove(target, name, listener)


def changed_by_flush(session: Session) -> None:
    session.get_one(Product, 1).brand_id = 2


def labelled(session: Session) -> None:
    product = session.get_one(Product, 1)
    product.labels.append(session.get_one(Label, 1))


def deleted_by_flush(session: Session) -> None:
    session.delete(session.get_one(Product, 1))


def looked_up(session: Session) -> None:
    session.execute(update(Product).where(Product.brand_id == 1).values(brand_id=2))


def looked_up_by_method(session: Session) -> None:
    session.execute(update(Review).values(stars=1))


def deleted(session: Session) -> None:
    session.execute(delete(Product).where(Product.brand_id == 1))


def inserted(session: Session) -> None:
    session.execute(insert(Label), [{"text": "a"}, {"text": "b"}])


def linked(session: Session) -> None:
    session.execute(insert(labels).values(product_id=1, label_id=1))


def saved(session: Session) -> None:
    session.bulk_insert_mappings(Note, [{"product_id": 1}])  # type: ignore[arg-type]


WRITES = [
    changed_by_flush,
    labelled,
    deleted_by_flush,
    looked_up,
    looked_up_by_method,
    deleted,
    inserted,
    linked,
    saved,
]


def _note(calls: list[str], name: str, *given: Any) -> None:
    sessions = [one if isinstance(one, Session) else getattr(one, "session", None) for one in given]
    mine = next(each for each in sessions if isinstance(each, Session)).info.get("mine", False)
    calls.append(f"{name} of {'the app' if mine else 'another'}")


@pytest.mark.parametrize("write", WRITES)
def test_listeners_on_every_session_hear_the_same_as_without_a_watch(
    make_store: Callable[..., Store], write: Callable[[Session], None]
) -> None:
    """Each event is heard as often, and of sessions of the app alone."""
    heard: list[list[str]] = []
    for watched in (True, False):
        store = make_store()
        with store.sessions.begin() as session:
            session.add_all([Review(id=1, product_id=3), Note(id=1, product_id=2)])
        if not watched:
            store.collector.stop()
        sessions = sessionmaker(store.engine, class_=store.sessions.class_, info={"mine": True})
        calls: list[str] = []
        with ExitStack() as stack, sessions() as session:
            for name in SESSION_EVENTS:
                stack.enter_context(listening(Session, name, partial(_note, calls, name)))
            write(session)
            session.commit()
        heard.append(sorted(calls))
    assert heard[0] == heard[1]


@pytest.mark.parametrize("on", ["every session", "the factory"])
def test_a_tenant_that_is_set_for_each_transaction_stays_the_tenant(make_store: Callable[..., Store], on: str) -> None:
    """The recipe for row level security: a look does not set it anew, so the app's statement changes the same rows."""
    store = make_store()
    tenants: list[Any] = []

    def set_tenant(session: Session, _: object, connection: Any) -> None:
        connection.exec_driver_sql("CREATE TEMP TABLE IF NOT EXISTS tenant (id)")
        connection.exec_driver_sql("DELETE FROM tenant")
        connection.exec_driver_sql("INSERT INTO tenant VALUES (?)", (session.info.get("tenant"),))

    sessions = sessionmaker(store.engine, class_=store.sessions.class_, info={"tenant": 2})
    mine = select(Brand.id).where(Brand.id == 2).scalar_subquery()
    target = Session if on == "every session" else store.sessions
    with listening(target, "after_begin", set_tenant), store.purged() as tags, sessions() as session:
        session.execute(update(Product).where(Product.brand_id == mine).values(brand_id=1))
        session.get_one(Product, 1).brand_id = 2
        session.flush()
        tenants.append(session.connection().exec_driver_sql("SELECT id FROM tenant").scalar())
        session.commit()
    assert tenants == [2]
    assert tags >= {"product:3", "product:1", "brand:2", "brand:1"}


def test_rows_that_a_listener_hides_from_queries_are_looked_at(make_store: Callable[..., Store]) -> None:
    """The recipe for soft deletes adds criteria to each query: the rows that a flush changes are read without them."""
    store = make_store()

    def hide(state: Any) -> None:
        if state.is_select and not state.is_column_load and not state.execution_options.get("all"):
            state.statement = state.statement.options(with_loader_criteria(Product, Product.brand_id == 1))

    with listening(Session, "do_orm_execute", hide), store.purged() as tags, store.sessions.begin() as session:
        product = session.scalars(select(Product).where(Product.id == 3), execution_options={"all": True}).one()
        product.brand_id = 1
    assert tags == {"product:3", "brand:2", "brand:1", "products"}


# -- flushes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["before_flush", "after_flush", "after_flush_postexec"])
@pytest.mark.parametrize("write", [looked_up, looked_up_by_method, deleted, inserted, linked])
def test_a_listener_may_run_statements_while_a_session_flushes(
    make_store: Callable[..., Store], name: str, write: Callable[[Session], None]
) -> None:
    """The statement does not flush again, and what it changes is purged with the rest."""
    told: list[list[Any]] = []
    for watched in (True, False):
        store = make_store()
        if not watched:
            store.collector.stop()
        runs = iter([True])

        def act(session: Session, *_: object, runs: Iterator[bool] = runs) -> None:
            if next(runs, False):
                write(session)

        with listening(store.sessions, name, act), store.purged() as tags, store.sessions.begin() as session:
            session.add(Label(id=70))
        with store.engine.connect() as connection:
            told.append(
                [list(connection.execute(select(each))) for each in (Product.__table__, Label.__table__, labels)]
            )
        if watched:
            assert tags >= {"label:70"} | ({"product:1", "brand:1"} if write in (looked_up, deleted) else set())
    assert told[0] == told[1]


@pytest.mark.parametrize("name", ["before_update", "after_update"])
def test_a_listener_on_a_class_may_run_statements_while_a_session_flushes(store: Store, name: str) -> None:
    """The same for what mappers tell of."""

    def act(_: object, __: object, target: Any) -> None:
        session = object_session(target)
        assert session is not None
        session.execute(update(Product).where(Product.id == 3).values(brand_id=1))

    with listening(Brand, name, act), store.purged() as tags, store.sessions.begin() as session:
        session.get_one(Brand, 1).name = "renamed"
    assert tags == {"brand:1", "brand:2", "product:3", "products"}


@pytest.mark.parametrize("autoflush", [True, False])
@pytest.mark.parametrize("target", [Product, Product.__table__])
@pytest.mark.parametrize("option", [{}, {"autoflush": False}])
def test_a_statement_flushes_as_it_does_without_a_watch(
    make_store: Callable[..., Store], target: Any, option: dict[str, Any], *, autoflush: bool
) -> None:
    """SQLAlchemy decides whether what is pending is written before a statement: for classes, tables, and by options."""
    columns = target if target is Product else target.c
    counts: list[tuple[int, set[Any]]] = []
    for watched in (True, False):
        store = make_store()
        if not watched:
            store.collector.stop()
        with store.sessions(autoflush=autoflush) as session:
            session.add(Product(id=50, brand_id=1))
            statement = delete(target).where(columns.brand_id == 1).execution_options(synchronize_session=False)
            found: Any = session.execute(statement, execution_options=option)
            session.commit()
            counts.append((found.rowcount, set(session.scalars(select(Product.id)))))
    assert counts[0] == counts[1]


# -- locks -------------------------------------------------------------------------------------


def unlabelled(session: Session) -> None:
    product = session.get_one(Product, 2)
    product.labels.clear()


def unlinked(session: Session) -> None:
    session.execute(delete(labels).where(labels.c.product_id == 2))


@pytest.mark.parametrize("write", [labelled, linked, unlabelled, unlinked, deleted_by_flush, deleted])
def test_the_other_side_of_a_link_is_not_locked(
    make_store: Callable[..., Store], write: Callable[[Session], None]
) -> None:
    """Two transactions that hang the same label on two products go on side by side, as they do without a watch."""
    store = make_store({Product: ["product:{id}", "kind:{kind}"], Label: ["label:{id}", "text:{text}"]})
    with store.sessions.begin() as session:
        session.execute(insert(labels).values(product_id=2, label_id=1))
    locked: list[str] = []

    def note(_: object, statement: Any, *__: object) -> None:
        if getattr(statement, "_for_update_arg", None) is not None:
            locked.extend(str(each) for each in statement.get_final_froms())

    with listening(store.engine, "before_execute", note), store.purged() as tags, store.sessions.begin() as session:
        write(session)
    assert "label" not in locked
    if write not in (deleted_by_flush, deleted):
        assert locked == []
    if write is not deleted_by_flush:
        assert tags >= {"label:1", "text:"}


class Taken:
    """An outbox on the session's connection."""

    def add(self, session: Session, tags: tuple[str, ...], /) -> None:
        session.connection().execute(select(*map(literal, tags)))


@pytest.mark.parametrize("outbox", [None, Taken()], ids=["alone", "with an outbox"])
def test_a_listener_finds_what_a_commit_is_about_to_flush(make_store: Callable[..., Store], outbox: Any) -> None:
    """It was registered later; the commit itself flushes after it, as an extension that indexes for search expects."""
    store = make_store(outbox=outbox)
    found: list[tuple[int, int, int]] = []

    def listen(session: Session) -> None:
        found.append((len(session.new), len(session.dirty), len(session.deleted)))

    event.listen(store.sessions, "before_commit", listen)
    with store.purged() as tags, store.sessions.begin() as session:
        product, label = session.get_one(Product, 1), session.get_one(Label, 2)
        session.add(Label(id=11))
        product.price = 9
        session.delete(label)
    assert found == [(1, 1, 1)]
    assert tags == {"label:11", "label:2", "product:1", "brand:1", "products"}
