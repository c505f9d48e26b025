"""The view of InnoDB: a transaction reads rows as they stood at its first plain query, and writes them as they stand.

A write makes no view, and neither does a query that locks: what an app reads after these is as new as that query. So a
look makes none either, and reads plainly only where the app has done so itself.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import Connection, Select, event, text

from fastapi_cacheinval.contrib.sqlalchemy.autocommit import will_stand
from fastapi_cacheinval.contrib.sqlalchemy.sqlalchemy_private import isolation_of

__all__ = ["has_view", "heed_views", "is_innodb", "keeps_rows", "makes_views"]

_KEEP_ROWS = frozenset({"REPEATABLE READ", "SERIALIZABLE"})
# What PostgreSQL has said of each transaction.
_KEEPING: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
_ASK_LEVEL = text("SELECT upper(current_setting('transaction_isolation'))")
_READ_NEW_ROWS = frozenset({"READ COMMITTED", "READ UNCOMMITTED"})
# The transactions that surely have a view.
_VIEWING: WeakSet[Any] = WeakSet()


def keeps_rows(connection: Connection) -> bool:
    """Whether PostgreSQL reads rows as they stood when the transaction began to read.

    It is asked once for each transaction: SQL, a role or the server may have set the level, and SQLAlchemy not know it.
    No transaction can change it once it has read.
    """
    if connection.dialect.name != "postgresql" or will_stand(connection):
        return False
    whole: Any = connection.get_transaction()
    known = _KEEPING.get(whole)
    if known is None:
        known = _KEEPING[whole] = connection.scalar(_ASK_LEVEL) in _KEEP_ROWS
    return known


def is_innodb(connection: Connection) -> bool:
    """Whether queries may read rows as they stood once, while writes change them as they stand: so does InnoDB.

    Nobody can ask it for the level of a transaction, which SQL may have set.
    """
    return connection.dialect.name in ("mysql", "mariadb")


def makes_views(connection: Connection) -> bool:
    """Whether a plain query makes the view of a transaction of InnoDB, for all that SQLAlchemy knows of its level.

    In autocommit, which the driver knows better, each query has a view of its own.
    """
    return is_innodb(connection) and isolation_of(connection) not in _READ_NEW_ROWS and not will_stand(connection)


def heed_views(connection: Connection) -> None:
    """A session has begun to use a connection: its queries are heard."""
    if makes_views(connection) and not event.contains(connection, "after_execute", _executed):
        event.listen(connection, "after_execute", _executed)


def has_view(connection: Connection) -> bool:
    """Whether the transaction surely reads rows as they stood already; of queries as text that is not known."""
    return connection.get_transaction() in _VIEWING


def _executed(
    connection: Connection, clauseelement: Any, multiparams: Any, params: Any, execution_options: Any, result: Any
) -> None:
    if isinstance(clauseelement, Select):
        query: Any = clauseelement  # pyright: ignore[reportUnknownVariableType]
        whole = connection.get_transaction()
        if whole is not None and query._for_update_arg is None and query.columns_clause_froms:  # noqa: SLF001
            _VIEWING.add(whole)
