"""What the database's catalogue says of a table, asked where looks depend on it.

It has the order in which the database follows foreign keys when a row goes. And it tells whether a write stays what it
is when a `RETURNING` is added that the app has not written.

PostgreSQL's row-level security counts a write that returns columns as one that reads them: the policies for SELECT
then narrow an UPDATE or a DELETE that reads nothing, and refuse new rows that they hide. Its `DO INSTEAD` rules refuse
a `RETURNING`, and so do SQLite's virtual tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, cast
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Table, text

from fastapi_cacheinval.contrib.sqlalchemy.locking import take_turn

__all__ = ["Catalogued", "catalogued", "foreign_keys_to", "may_be_ruled"]

# What is said of tables, and until when that is believed: for each pool of connections, which is to one database.
_SAID: WeakKeyDictionary[Any, dict[tuple[str, str], tuple[Any, float]]] = WeakKeyDictionary()
_SECONDS = 60.0
# A table of this name in any schema: which one is meant may change with each transaction's search path.
_ASK_OF_ALL = text("""
SELECT count(*) FROM pg_catalog.pg_rewrite w JOIN pg_catalog.pg_class c ON c.oid = w.ev_class
WHERE c.relname = CAST(:name AS name) AND w.is_instead AND w.ev_type <> '1'
""")
# The table, and what views and rules stand for it; `to_regclass` finds it as a statement does. Policies hold for some
# roles, and below a view for its owner perhaps.
_ASK = text("""
WITH RECURSIVE below (oid) AS (
    SELECT CAST(to_regclass(CAST(:name AS text)) AS oid)
    UNION
    SELECT d.refobjid FROM below
    JOIN pg_catalog.pg_rewrite w ON w.ev_class = below.oid
    JOIN pg_catalog.pg_depend d ON d.objid = w.oid
        AND d.classid = CAST('pg_rewrite' AS regclass) AND d.refclassid = CAST('pg_class' AS regclass)
)
SELECT 'rule', NULL, CAST(ev_type AS text), NULL, NULL, NULL FROM pg_catalog.pg_rewrite
WHERE ev_class = CAST(to_regclass(CAST(:name AS text)) AS oid) AND is_instead
UNION ALL
SELECT CAST(c.oid AS text), CAST(polpermissive AS text), CAST(polcmd AS text), CAST(polroles AS text),
    pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)
FROM below JOIN pg_catalog.pg_class c ON c.oid = below.oid AND CASE
    WHEN c.oid = CAST(to_regclass(CAST(:name AS text)) AS oid) THEN row_security_active(c.oid) ELSE c.relrowsecurity END
JOIN pg_catalog.pg_policy p ON p.polrelid = c.oid
""")
# Of tables of this name in any schema, as above. PostgreSQL's triggers come by name, and InnoDB's foreign keys do.
_ASK_ORDER = text("""
SELECT c.relname, f.conname, a.attname
FROM pg_catalog.pg_class p JOIN pg_catalog.pg_trigger t ON t.tgrelid = p.oid AND t.tgtype & 8 <> 0
JOIN pg_catalog.pg_constraint f ON f.oid = t.tgconstraint AND f.confrelid = p.oid
JOIN pg_catalog.pg_class c ON c.oid = f.conrelid
CROSS JOIN unnest(f.conkey) WITH ORDINALITY k (number, place)
JOIN pg_catalog.pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.number
WHERE p.relname = CAST(:name AS name) ORDER BY t.tgname, k.place
""")
_ASK_ORDER_OF_INNODB = text("""
SELECT table_name, constraint_name, column_name FROM information_schema.key_column_usage
WHERE table_schema = database() AND referenced_table_name = :name
ORDER BY CAST(constraint_name AS BINARY), table_name, ordinal_position
""")
_ORDERS = {"postgresql": _ASK_ORDER, "mysql": _ASK_ORDER_OF_INNODB, "mariadb": _ASK_ORDER_OF_INNODB}
_RULES = {"update": "2", "insert": "3", "delete": "4"}
_POLICIES = {"update": "w", "insert": "a", "delete": "d"}


@dataclass(frozen=True, slots=True)
class Catalogued:
    """What a catalogue says of one table: `kind` of a write is `"insert"`, `"update"` or `"delete"`."""

    rows: tuple[tuple[str | None, ...], ...] = ()
    virtual: bool = False

    def replaces(self, kind: str) -> bool:
        """Whether another statement stands for such a write, which may change other rows, and return nothing."""
        return any(row[0] == "rule" and row[2] == _RULES[kind] for row in self.rows)

    def hides(self, kind: str) -> bool:
        """Whether such a write may meet rows, or leave rows, that are not to be had by a `RETURNING`."""
        read = self._conditions("r", 4)
        met = read if kind == "insert" else self._conditions(_POLICIES[kind], 4)
        left = read if kind == "delete" else self._conditions(_POLICIES[kind], 5)
        return self.virtual or met != read or left != read

    def _conditions(self, command: str, place: int) -> set[tuple[str | None, ...]]:
        """The policies for one command, by what they ask of a row; one without a check asks the same of a new row."""
        policies = [row for row in self.rows if row[0] != "rule" and row[2] in ("*", command)]
        return {(row[0], row[1], row[3], row[place] if row[place] is not None else row[4]) for row in policies}


def _once_a_minute(connection: Connection, what: str, name: str, ask: Callable[[], Any]) -> Any:
    """The catalogue's answer about a name, asked again after a minute; each pool of connections has its own."""
    known = _SAID.setdefault(connection.engine.pool, {})
    said, until = known.get((what, name), (None, 0.0))
    if monotonic() >= until:
        said = ask()
        known[what, name] = said, monotonic() + _SECONDS
    return said


def may_be_ruled(connection: Connection, table: Any) -> bool:
    """Whether any table of this name has a rule that replaces writes, on PostgreSQL; asked once a minute."""
    name = str(table.name)
    asked = _once_a_minute(connection, "rules", name, lambda: connection.execute(_ASK_OF_ALL, {"name": name}).scalar())
    return bool(asked)


def foreign_keys_to(connection: Connection, table: Table) -> list[tuple[str, str]]:
    """The tables and columns of the foreign keys to a table, in the order in which the database follows them.

    The catalogue is asked once a minute.
    """
    name, query = str(table.name), _ORDERS.get(connection.dialect.name)
    if query is None:
        return []

    def ask() -> list[tuple[str, str]]:
        columns: dict[tuple[str, str], list[str]] = {}
        for of, key, column in connection.execute(query, {"name": name}):
            columns.setdefault((of, key), []).append(column)
        return [(of, ",".join(those)) for (of, _), those in columns.items()]

    said: list[tuple[str, str]] = _once_a_minute(connection, "order", name, ask)
    return said


def catalogued(connection: Connection, table: Any, options: Mapping[str, Any] | None = None) -> Catalogued:
    """What the catalogue says of a table; SQLite's is asked once a minute for each pool of connections.

    PostgreSQL's is asked anew: a role, or a search path, may decide.
    """
    name = connection.dialect.name
    if name not in ("postgresql", "sqlite") or not isinstance(table, Table):
        return Catalogued()
    target = cast("Any", table)
    schema, own = _named(connection, target, options or {})
    if name == "postgresql":
        return Catalogued(tuple(tuple(row) for row in connection.execute(_ASK, {"name": schema + own})))

    def is_virtual() -> bool:
        take_turn(connection, [target], options, begin=False)
        listed = connection.exec_driver_sql(f"PRAGMA {schema}table_list({own})")
        return any(row[2] == "virtual" for row in listed)

    return Catalogued(virtual=_once_a_minute(connection, "kind", schema + own, is_virtual))


def _named(connection: Connection, table: Table, options: Mapping[str, Any]) -> tuple[str, str]:
    every: Mapping[str, Any] = {**connection.get_execution_options(), **options}
    schema = cast("Any", every.get("schema_translate_map") or {}).get(table.schema, table.schema)
    quoting = connection.dialect.identifier_preparer
    return f"{quoting.quote_schema(schema)}." if schema else "", quoting.quote(table.name)
