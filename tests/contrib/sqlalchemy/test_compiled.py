"""Sessions with a watch, and without one, share an engine and what SQLAlchemy has compiled for it."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete, event, update
from sqlalchemy.orm import Session

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.store import Label, Store, tags_of

STATEMENTS: dict[str, Any] = {
    "delete": delete(Label).where(Label.id == 1),
    "update": update(Label).where(Label.id == 1).values(text="new"),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_that_has_run_without_a_watch_tells_its_rows_with_one(store: Store, name: str) -> None:
    """SQLAlchemy 2.0 takes a DELETE that returns columns for one that has returned none."""
    with Session(store.engine) as session:
        session.execute(STATEMENTS[name])
    with capture_invalidations(store.cache) as receipts, store.sessions.begin() as session:
        session.execute(STATEMENTS[name])
    assert [receipt.everything for receipt in receipts] == [False]
    assert tags_of(receipts) == [{"label:1"}]


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_that_has_run_with_a_watch_returns_nothing_without_one(store: Store, name: str) -> None:
    """On PostgreSQL a `RETURNING` needs the right to read."""
    sent: list[str] = []
    event.listen(store.engine, "before_cursor_execute", lambda *given: sent.append(given[2]))
    with store.sessions() as session:
        session.execute(STATEMENTS[name])
    assert any("RETURNING" in each for each in sent)
    sent.clear()
    with Session(store.engine) as session:
        session.execute(STATEMENTS[name])
    assert sent
    assert not any("RETURNING" in each for each in sent)


@pytest.mark.parametrize("name", STATEMENTS)
def test_each_watch_is_told_the_columns_of_its_own_tags(store: Store, name: str) -> None:
    """Another one of the same engine asks for the key alone."""
    with store.sessions() as session:
        session.execute(STATEMENTS[name])
    store.collector.stop()
    cache = HTTPCache()
    collector = collect_changes(store.sessions, cache, {Label: ["text:{text}"]})
    with capture_invalidations(cache) as receipts, store.sessions.begin() as session:
        session.execute(STATEMENTS[name])
    collector.stop()
    assert [receipt.everything for receipt in receipts] == [False]
    assert "text:" in set().union(*tags_of(receipts))
