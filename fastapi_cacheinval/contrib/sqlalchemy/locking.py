"""Locks of the rows that are looked at before they change, where the database lets the app's role take them.

PostgreSQL asks for the right to UPDATE for that. A role that only deletes may not have it, nor one whose deletes take
rows of other tables along, and some views have no rows to lock. The look is the same without a lock.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Table, false
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.sql.selectable import AliasedReturnsRows

from fastapi_cacheinval.contrib.sqlalchemy.autocommit import will_stand
from fastapi_cacheinval.contrib.sqlalchemy.snapshots import keeps_rows

__all__ = ["Kept", "in_savepoint", "is_outdated", "is_united", "locked", "look", "take_turn"]

logger = logging.getLogger("fastapi_cacheinval.contrib.sqlalchemy")

# Whether rows of a class are to be locked, for each pool of connections.
_LOCKABLE: WeakKeyDictionary[Any, dict[Mapper[Any], bool]] = WeakKeyDictionary()
# "Insufficient privilege" and "feature not supported".
_REFUSALS = frozenset({"42501", "0A000"})
_OUTDATED = "40001"
# They refuse no locks in this way, and have no need of a savepoint.
_REFUSE_NONE = frozenset({"sqlite", "mysql", "mariadb"})


@dataclass(slots=True)
class Kept:
    """Whether what was there before a savepoint is kept: MariaDB ends the whole transaction at a deadlock."""

    transaction: bool = True


@contextmanager
def in_savepoint(connection: Connection) -> Generator[Kept]:
    """A savepoint around a look; where it is gone at an error, the error before that is the one to be heard of."""
    kept = Kept()
    nested = connection.begin_nested()
    try:
        yield kept
    except BaseException:
        try:
            nested.rollback()
        except DBAPIError:
            kept.transaction = False
        raise
    nested.commit()


def is_outdated(session: Session, mapper: Mapper[Any], query: Any) -> bool:
    """Whether others have changed rows that a query over a class finds as they were before, for PostgreSQL to say.

    It refuses to lock such a row at REPEATABLE READ, and forgets a lock with its savepoint.
    """
    connection = session.connection()
    if is_united(mapper) or not keeps_rows(connection):
        return False
    nested = connection.begin_nested()
    try:
        session.execute(query.with_for_update(read=True, nowait=True, of=list(mapper.tables)))
    except DBAPIError as error:
        return _state_of(error) == _OUTDATED
    finally:
        nested.rollback()
    return False


def is_united(mapper: Mapper[Any]) -> bool:
    """Whether a class with a table of its own is read from a UNION of its table with those of classes below it."""
    return isinstance(mapper.local_table, Table) and isinstance(mapper.selectable, AliasedReturnsRows)


def locked(query: Any, mapper: Mapper[Any], *, gone: bool = False, of: Any = None) -> Any:
    """A query over a class, its rows locked; `gone` where they are about to be deleted, `of` what alone is locked."""
    if of is None and mapper.with_polymorphic_mappers:
        # It loads its subclasses inline, and stands in an outer join, whose other side no database locks.
        of = list(mapper.tables)
    return query.with_for_update(key_share=not gone, of=of)


def look(session: Session, mapper: Mapper[Any], query: Any, locking: Any, parameters: Any = None) -> Iterable[Any]:
    """The rows of a query that locks rows of a class, or of the one without the lock if the database refuses that.

    The first look of a class stands in a savepoint, which an error in the middle of a transaction needs.
    """
    connection = session.connection()
    known = _LOCKABLE.setdefault(connection.engine.pool, {})
    lockable = known.get(mapper)
    if lockable is None and connection.dialect.name not in _REFUSE_NONE:
        try:
            rows = _tried(session, connection, locking, parameters)
        except DBAPIError as error:
            if not _is_refusal(error):
                raise
            rows = session.execute(query, parameters).all()
            known[mapper] = False
            logger.warning(
                "the database lets this role lock no rows of %s: tags may be missed where others change a row in "
                "between. The role needs the right to UPDATE.",
                mapper.class_.__name__,
            )
        else:
            known[mapper] = True
        return rows
    try:
        result: Any = session.execute(query if lockable is False else locking, parameters)
        found: list[Any] = result.all()
    except DBAPIError as error:
        if _is_refusal(error):
            # The rights have changed, or the role: the next look finds out.
            known.pop(mapper, None)
        raise
    return found


def _tried(session: Session, connection: Connection, query: Any, parameters: Any) -> Iterable[Any]:
    if will_stand(connection):
        return session.execute(query, parameters).all()
    with in_savepoint(connection):
        return session.execute(query, parameters).all()


def take_turn(connection: Connection, table: Table, options: Mapping[str, Any], *, begin: bool = False) -> None:
    """Lock what is about to be written, before it is looked at; only SQLite has no locks of rows for that.

    A transaction that has read may write no more there, once another has written. Its driver begins one with the first
    write, unless the app begins it; `begin` where the look itself needs it. What is no table locks nothing.
    """
    if connection.dialect.name == "sqlite":
        driver: Any = connection.connection.driver_connection
        if begin or driver.in_transaction:
            try:
                connection.execute(table.delete().where(false()), execution_options=dict(options))
            except DBAPIError as error:
                if "cannot modify" not in str(error.orig):
                    raise


def _is_refusal(error: DBAPIError) -> bool:
    return _state_of(error) in _REFUSALS


def _state_of(error: DBAPIError) -> str | None:
    driver: Any = error.orig
    return getattr(driver, "sqlstate", None) or getattr(driver, "pgcode", None)
