"""The view of InnoDB: a transaction reads rows as they stood at its first plain query, and writes them as they stand.

A write makes no view, and neither does a query that locks: what an app reads after these is as new as that query. So a
look makes none either, and reads plainly only where the app has done so itself.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from sqlalchemy import Connection, Select, event

from fastapi_cacheinval.contrib.sqlalchemy.sqlalchemy_private import isolation_of

__all__ = ["has_view", "heed_views", "reads_old_rows"]

_READ_NEW_ROWS = frozenset({"READ COMMITTED", "READ UNCOMMITTED", "AUTOCOMMIT"})
# The transactions that surely have a view.
_VIEWING: WeakSet[Any] = WeakSet()


def reads_old_rows(connection: Connection) -> bool:
    """Whether queries may read rows as they stood once, while writes change them as they stand: so does InnoDB."""
    return connection.dialect.name in ("mysql", "mariadb") and isolation_of(connection) not in _READ_NEW_ROWS


def heed_views(connection: Connection) -> None:
    """A session has begun to use a connection: its queries are heard."""
    if reads_old_rows(connection) and not event.contains(connection, "after_execute", _executed):
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
