"""Locks of the rows that are looked at before they change, where the database lets the app's role take them.

PostgreSQL asks for the right to UPDATE for that. A role that only deletes may not have it, nor one whose deletes take
rows of other tables along, and some views have no rows to lock. The look is the same without a lock.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Table, column, false, null
from sqlalchemy import table as lightweight
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
# SQLite's "error" and "not authorized", which it says of a statement before it runs it.
_NOT_RUN = frozenset({1, 23})


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


def take_turn(
    connection: Connection, tables: Iterable[Any], options: Mapping[str, Any] | None = None, *, begin: bool = True
) -> None:
    """Lock what is about to be written in these tables, before it is looked at: SQLite has no locks of rows for that.

    Its driver begins a transaction with the first write, and so does this; without `begin` only the transaction that
    the app has begun waits here. One that has read may write no more there, once another has written.

    In autocommit nothing holds a lock. What cannot be locked is left to the write itself, and to its error.
    """
    if connection.dialect.name != "sqlite" or will_stand(connection):
        return
    driver: Any = connection.connection.driver_connection
    if begin or driver.in_transaction:
        files: dict[str | None, list[Any]] = {}
        for table in tables:
            files.setdefault(table.schema, []).append(table)
        for those in files.values():
            any(_writes_none(connection, one, options) for table in those for one in _no_writes(table))


def _no_writes(table: Any) -> Iterator[Any]:
    """Writes of no row; a view may have a trigger for one of them alone."""
    yield table.delete().where(false())
    # No column of this one has a default, which would be worked out.
    columns: list[Any] = [column(each.name) for each in table.c]
    bare = lightweight(table.name, *columns, schema=table.schema)
    yield bare.update().values(dict.fromkeys(bare.c, null())).where(false())


def _writes_none(connection: Connection, dml: Any, options: Mapping[str, Any] | None) -> bool:
    try:
        connection.execute(dml, execution_options=dict(options or {}))
    except DBAPIError as error:
        # The transaction is as it was only where SQLite has not begun to run the statement.
        if getattr(error.orig, "sqlite_errorcode", None) not in _NOT_RUN and "cannot modify" not in str(error.orig):
            raise
        return False
    return True


def _is_refusal(error: DBAPIError) -> bool:
    return _state_of(error) in _REFUSALS


def _state_of(error: DBAPIError) -> str | None:
    driver: Any = error.orig
    return getattr(driver, "sqlstate", None) or getattr(driver, "pgcode", None)
