"""Whether a `RETURNING` that the app has not written would change what a statement does."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Any, cast
from weakref import WeakKeyDictionary

from sqlalchemy import ColumnClause, Connection, Table

from fastapi_cacheinval.contrib.sqlalchemy.locking import take_turn
from fastapi_cacheinval.contrib.sqlalchemy.statements import reads

__all__ = ["is_unseen"]

# What a database says of its tables, and until when that is believed: for each pool of connections.
_SAID: WeakKeyDictionary[Any, dict[str, tuple[bool, float]]] = WeakKeyDictionary()
_SECONDS = 60.0
_VIRTUAL = "SELECT count(*) FROM {0}sqlite_master WHERE name = ? AND sql LIKE 'CREATE VIRTUAL %'"
# Of a table, or of those that a view shows.
_POLICIES = """
SELECT count(*) FROM pg_class AS c WHERE c.oid = to_regclass(%s) AND (c.relrowsecurity OR EXISTS (
    SELECT FROM pg_rewrite AS r JOIN pg_depend AS d ON d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
    JOIN pg_class AS t ON t.oid = d.refobjid WHERE r.ev_class = c.oid AND t.relrowsecurity))
"""


def is_unseen(dml: Any, table: Table, connection: Connection, options: Mapping[str, Any]) -> bool:
    """Whether an UPDATE or a DELETE does the same with a `RETURNING` as without it.

    SQLite has none for virtual tables. PostgreSQL leaves out rows that its policies do not let the role SELECT, as it
    does anyway for a statement that reads a column.
    """
    name = connection.dialect.name
    if name == "sqlite":
        return not _says(connection, table, options, _VIRTUAL)
    if name == "postgresql" and not reads(dml, ColumnClause):
        return not _says(connection, table, options, _POLICIES)
    return True


def _says(connection: Connection, table: Table, options: Mapping[str, Any], question: str) -> bool:
    every: Mapping[str, Any] = {**connection.get_execution_options(), **options}
    schema = cast("Any", every.get("schema_translate_map") or {}).get(table.schema, table.schema)
    quote = connection.dialect.identifier_preparer.quote
    before = "" if schema is None else f"{quote(schema)}."
    known = _SAID.setdefault(connection.engine.pool, {})
    said, until = known.get(before + table.name, (False, 0.0))
    if monotonic() >= until:
        if connection.dialect.name == "sqlite":
            take_turn(connection, table, options)
            found = connection.exec_driver_sql(question.format(before), (table.name,))
        else:
            found = connection.exec_driver_sql(
                question.replace("%s", "'" + f"{before}{quote(table.name)}".replace("'", "''") + "'")
            )
        said = bool(found.scalar())
        known[before + table.name] = said, monotonic() + _SECONDS
    return said
