"""A commit of the connection itself, behind the session's back, is no lost purge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from tests.contrib.sqlalchemy.store import Product, Store

pytestmark = pytest.mark.filterwarnings("ignore:(nested )?transaction already deassociated:sqlalchemy.exc.SAWarning")


def _flush(session: Session) -> None:
    session.get_one(Product, 1).price = 9
    session.flush()


def _committed(session: Session) -> None:
    _flush(session)
    session.connection().commit()


def _committed_with_more_undone(session: Session) -> None:
    session.execute(update(Product).where(Product.id == 1).values(price=9))
    session.connection().commit()
    session.execute(update(Product).where(Product.id == 1).values(price=10))
    session.rollback()


def _committed_in_a_savepoint(session: Session) -> None:
    session.begin_nested()
    _committed(session)


def _savepoint_of_the_connection(session: Session) -> None:
    with session.connection().begin_nested():
        _flush(session)
    session.connection().commit()


WAYS: dict[str, Callable[[Session], Any]] = {
    "committed": _committed,
    "with more that is undone": _committed_with_more_undone,
    "in a savepoint": _committed_in_a_savepoint,
    "a savepoint of the connection": _savepoint_of_the_connection,
}


@pytest.mark.parametrize("how", list(WAYS))
def test_what_the_connection_commits_is_purged_when_the_session_ends(store: Store, how: str) -> None:
    """The session is closed without a commit of its own."""
    with store.purged() as purged, store.sessions() as session:
        WAYS[how](session)
    with store.sessions() as session:
        assert session.get_one(Product, 1).price == 9
    assert purged >= {"product:1", "brand:1"}


def test_a_rollback_of_the_connection_is_none(store: Store) -> None:
    """What it takes back, and what the session takes back, purges nothing."""
    with store.purged() as purged, store.sessions() as session:
        _flush(session)
        session.connection().rollback()
        session.rollback()
        _flush(session)
    assert not purged


@pytest.mark.parametrize("mode", ["conditional_savepoint", "rollback_only", "control_fully", "create_savepoint"])
def test_a_session_on_the_apps_own_connection_purges_once_and_leaves_no_listener(store: Store, mode: Any) -> None:
    """The transaction may be the app's: the purge comes with the session's commit, as the docs say."""
    with store.engine.connect() as connection:
        with store.purged() as purged, connection.begin():
            with store.sessions(bind=connection, join_transaction_mode=mode) as session:
                _flush(session)
                session.commit()
            listening: Any = connection.dispatch
            assert not list(listening.commit)
        assert purged == {"product:1", "brand:1", "products"}
