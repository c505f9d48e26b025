"""A flush that fails and is rolled back purges nothing: else a client that is turned away would empty the cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.store import TAGS, Bundle, Label, Product, Store

pytestmark = pytest.mark.anyio
KEYS: dict[type, Any] = {Label: ["label:{id}"], Product: ["product:{id}"]}


def _take_a_name(session: Session) -> None:
    session.get_one(Label, 1).text = "two"


def _second_of_two(session: Session) -> None:
    session.get_one(Product, 1).price = 9
    session.flush()
    _take_a_name(session)


def _no_value(session: Session) -> None:
    session.get_one(Product, 1).price = object()  # type: ignore[assignment]


def _add_after_another(session: Session) -> None:
    session.add_all([Bundle(id=9), Label(id=1)])


def _in_a_savepoint(session: Session) -> None:
    with session.begin_nested():
        _take_a_name(session)


def _mappings(session: Session) -> None:
    session.bulk_update_mappings(Label.__mapper__, [{"id": 1, "text": "new"}, {"id": 2, "text": "new"}])


def _statement(session: Session) -> None:
    session.execute(update(Label), [{"id": 1, "text": "new"}, {"id": 2, "text": "new"}])


def _links(session: Session) -> None:
    session.get_one(Product, 1).labels.append(session.get_one(Label, 1))
    session.flush()
    session.expire_all()
    session.get_one(Product, 1).labels.append(session.get_one(Label, 1))


def _delete_what_is_needed(session: Session) -> None:
    session.get_one(Product, 1).labels.append(session.get_one(Label, 1))
    session.flush()
    session.delete(session.get_one(Label, 1))


FAILING: dict[str, Callable[[Session], None]] = {
    "a name that is taken": _take_a_name,
    "the second of two": _second_of_two,
    "a value that is none": _no_value,
    "an insert after another": _add_after_another,
    "in a savepoint": _in_a_savepoint,
    "mappings": _mappings,
    "sets of parameters": _statement,
    "a link twice": _links,
    "a row that is needed": _delete_what_is_needed,
}


def prepared(folder: Path) -> Engine:
    """A database with two labels whose texts are unique."""
    store = Store(folder)
    store.collector.stop()
    with store.sessions.begin() as session:
        session.get_one(Label, 2).text = "two"
        session.flush()
        session.execute(text("CREATE UNIQUE INDEX one_text ON label (text)"))
    return store.engine


def _run(sessions: Any, name: str, end: str) -> None:
    with sessions() as session:
        FAILING[name](session)
        getattr(session, end)()


@pytest.mark.parametrize("end", ["flush", "commit"])
@pytest.mark.parametrize("begun", ["by the driver", "by hand"])
@pytest.mark.parametrize("name", FAILING)
def test_a_flush_that_fails_purges_nothing(tmp_path: Path, name: str, begun: str, end: str) -> None:
    """Whichever way it fails, and whoever began the transaction: SQLite's driver, or the recipe for savepoints."""
    engine = prepared(tmp_path)
    options: dict[str, Any] = {"isolation_level": None} if begun == "by hand" else {}
    engine.dispose()
    engine = create_engine(engine.url, connect_args=options)
    event.listen(engine, "connect", lambda made, _: made.execute("PRAGMA foreign_keys=ON"))
    if options:
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    for tags in (TAGS, KEYS):
        cache, sessions = HTTPCache(), sessionmaker(engine)
        collector = collect_changes(sessions, cache, tags)
        with capture_invalidations(cache) as receipts, pytest.raises(SQLAlchemyError):
            _run(sessions, name, end)
        collector.stop()
        assert receipts == []
    engine.dispose()


async def test_a_flush_of_an_asynchronous_session_that_fails_purges_nothing(tmp_path: Path) -> None:
    """Its driver tells of transactions as the other one does."""
    made = prepared(tmp_path)
    engine = create_async_engine(made.url.set(drivername="sqlite+aiosqlite"))
    cache, sessions = HTTPCache(), async_sessionmaker(engine)
    collector = collect_changes(sessions, cache, TAGS)
    with capture_invalidations(cache) as receipts:
        async with sessions() as session:
            (await session.get_one(Label, 1)).text = "two"
            with pytest.raises(SQLAlchemyError):
                await session.commit()
    collector.stop()
    await engine.dispose()
    made.dispose()
    assert receipts == []


def test_a_transaction_after_a_failed_flush_purges_what_it_changes(tmp_path: Path) -> None:
    """Nothing of the failure is left in the session."""
    engine = prepared(tmp_path)
    cache, sessions = HTTPCache(), sessionmaker(engine)
    collector = collect_changes(sessions, cache, TAGS)
    with capture_invalidations(cache) as receipts, sessions() as session:
        _take_a_name(session)
        with pytest.raises(SQLAlchemyError):
            session.flush()
        session.rollback()
        session.get_one(Label, 1).text = "three"
        session.commit()
    collector.stop()
    engine.dispose()
    assert [set(receipt.tags) for receipt in receipts] == [{"label:1"}]
    assert not any(receipt.everything for receipt in receipts)
