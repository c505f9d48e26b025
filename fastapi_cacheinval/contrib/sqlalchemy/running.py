"""A statement is run as the app wrote it, and tells which rows it has changed where the database can say so.

`RETURNING` is added only where the app's own result does not show it. Nothing else of a statement is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, cast

from sqlalchemy import Connection, Delete, Table, TextClause, Update
from sqlalchemy.engine import CursorResult, Result
from sqlalchemy.orm import Mapper, ORMExecuteState

from fastapi_cacheinval.contrib.sqlalchemy.catalogues import catalogued, may_be_ruled
from fastapi_cacheinval.contrib.sqlalchemy.given import replaces
from fastapi_cacheinval.contrib.sqlalchemy.sqlalchemy_private import hide_rows, no_rows, prebuffer
from fastapi_cacheinval.contrib.sqlalchemy.statements import (
    entity_of,
    parameter_sets,
    reads_itself,
    reads_other_tables,
    target_of,
)

__all__ = [
    "Ran",
    "connection_for",
    "is_bulk",
    "is_replaced",
    "is_several",
    "may_show",
    "options_of",
    "run",
    "run_inserting",
    "tells",
    "where_of",
]

# What says how a statement is run or its result handled, and not which rows it means.
_OF_THE_RUN = frozenset(
    {
        *(
            "synchronize_session",
            "autoflush",
            "populate_existing",
            "identity_token",
            "is_delete_using",
            "is_update_from",
        ),
        *("dml_strategy", "render_nulls", "yield_per", "stream_results", "max_row_buffer", "prebuffer_rows"),
        *("compiled_cache", "preserve_rowcount", "insertmanyvalues_page_size", "isolation_level", "no_parameters"),
    }
)


@dataclass(frozen=True, slots=True)
class Ran:
    """A statement that has been run: the app's result, the asked-for values of each changed row, and where it ran.

    `rows` is None where the database did not say, `connection` None where the result does not. `count` is how many rows
    were changed, None where that is not known.
    """

    result: Result[Any]
    rows: list[tuple[Any, ...]] | None
    connection: Connection | None
    count: int | None = None


def is_bulk(state: ORMExecuteState, dml: Any) -> bool:
    """Whether SQLAlchemy takes the parameters for rows of the class, with their keys: its bulk INSERT and UPDATE."""
    if entity_of(dml) is None or isinstance(dml, Delete) or not state.parameters:
        return False
    if isinstance(dml, Update) and not isinstance(state.parameters, list):
        return False
    return state.execution_options.get("dml_strategy", "auto") in ("auto", "bulk")


def is_several(state: ORMExecuteState) -> bool:
    """Whether a statement is run for several sets of parameters; a list of one set, or of none, is one run."""
    return len(parameter_sets(state.parameters)) > 1


def options_of(state: ORMExecuteState, *, of_statement: bool = False) -> dict[str, Any]:
    """The execution options that a look at the same rows needs: the map of schemas, and those of the app's own.

    `of_statement` leaves out those of the call: SQLAlchemy's bulk UPDATE does not hear of them.
    """
    statement: Any = state.statement
    every: Any = statement._execution_options if of_statement else state.execution_options  # noqa: SLF001
    return {name: value for name, value in every.items() if name not in _OF_THE_RUN and not name.startswith("_")}


def connection_for(state: ORMExecuteState, mapper: Mapper[Any] | None) -> Connection:
    """The connection that a statement is run on; `mapper` for a bulk one, which is routed by its class alone."""
    arguments: dict[str, Any] = dict(state.bind_arguments) if mapper is None else {"mapper": mapper.base_mapper}
    return state.session.connection(bind_arguments=cast("Any", arguments))


def shows(dml: Any, columns: Sequence[Any]) -> bool:
    """Whether the app's own `RETURNING` holds these columns."""
    returned: set[Any] = set()
    for one in getattr(dml, "_all_selected_columns", ()):
        returned.add(one._deannotate() if hasattr(one, "_deannotate") else one)  # noqa: SLF001
    return returned.issuperset(columns)


def may_show(dml: Any, columns: Sequence[Any]) -> bool:
    """Whether the app's own `RETURNING` holds these columns, or takes them in addition."""
    return shows(dml, columns) or not _takes_no_more(dml)


def _takes_no_more(dml: Any) -> bool:
    """Whether more columns would change what the app sees of its own `RETURNING`: of text (`*`), of a name twice.

    SQLAlchemy finds the columns of a part of a result by their names. All that are not named have one name.
    """
    every: Any = dml._all_selected_columns if dml._returning else ()  # noqa: SLF001
    if any(isinstance(one, TextClause) or getattr(one, "is_literal", False) for one in every):
        return True
    return len({_name_of(one) for one in every}) < len(every)


def _name_of(returned: Any) -> str | None:
    """The name of a column in its result, None if it has none, as an entity has not."""
    return getattr(returned, "_proxy_key", None)


def tells(state: ORMExecuteState, dml: Any, connection: Connection, columns: Sequence[Any]) -> bool:
    """Whether the database says these columns of each row that an UPDATE or a DELETE changes."""
    if dml._returning and (shows(dml, columns) or dml is not state.statement):  # noqa: SLF001
        return shows(dml, columns)
    table, dialect = target_of(dml), connection.dialect
    own, given = bool(dml._returning), bool(dml._return_defaults)  # noqa: SLF001
    if dml is not state.statement or is_several(state) or given or table is None:
        return False
    if _takes_no_more(dml):
        return False
    kind = "delete" if isinstance(dml, Delete) else "update"
    if not (table.implicit_returning and getattr(dialect, f"{kind}_returning")):
        return False
    if reads_other_tables(dml) and not getattr(dialect, f"{kind}_returning_multifrom"):
        return False
    if own:
        return True
    # A statement that reads a column of the row meets anyway only what the policies for SELECT show.
    reads = connection.dialect.name == "postgresql" and reads_itself(dml)
    return reads or not catalogued(connection, table, options_of(state)).hides(kind)


def is_replaced(state: ORMExecuteState, dml: Any, connection: Connection) -> bool:
    """Whether a rule stands for an UPDATE or a DELETE, so that nobody knows which rows change."""
    # The app's own `RETURNING` shows the rows of the rule.
    if connection.dialect.name != "postgresql" or dml._returning:  # noqa: SLF001
        return False
    table, kind = target_of(dml), "delete" if isinstance(dml, Delete) else "update"
    if table is None or not may_be_ruled(connection, table):
        return False
    return catalogued(connection, table, options_of(state)).replaces(kind)


def run(state: ORMExecuteState, dml: Any, columns: Sequence[Any], *, telling: bool) -> Ran:
    """Run an UPDATE or a DELETE; `telling` where `tells` has said that these columns are to be had."""
    if not telling:
        if dml._returning:  # noqa: SLF001
            result, rows = _looked_at(state, None, ())
            return Ran(result, None, where_of(result), None if rows is None else len(rows))
        result = state.invoke_statement()
        cursor = _cursor_of(result)
        changed = -1 if cursor is None else cursor.rowcount
        return Ran(result, None, where_of(result), None if changed < 0 else changed)
    if dml._returning and not shows(dml, columns):  # noqa: SLF001
        # Under names of their own: one that the app or another collector has given to a column would be taken for both.
        taken = {_name_of(one) for one in dml._returning}  # noqa: SLF001
        free = (name for number in count() if (name := f"cacheinval_{number}") not in taken)
        named = dict(zip(free, columns, strict=False))
        asked = dml.returning(*(column.label(name) for name, column in named.items()))
        # By these names: a statement that SQLAlchemy has compiled before knows its own labels alone.
        result, rows = _looked_at(state, asked, list(named))
        return Ran(_cut(result, len(result.keys()) - len(columns)), rows, where_of(result))
    if dml._returning:  # noqa: SLF001
        result, rows = _looked_at(state, None, columns)
        return Ran(result, rows, where_of(result))
    # SQLAlchemy 2.0 takes a compiled DELETE for one that returns other columns, or none: a hint, for no dialect that
    # there is, tells them apart.
    hint = ",".join(str(column) for column in columns)
    asked = dml.with_hint(hint, dialect_name="cacheinval").return_defaults(*columns)
    result = state.invoke_statement(statement=asked)
    rows, cursor = None, _cursor_of(result)
    if cursor is not None:
        read = _reader(cursor, columns)
        if read is not None:
            rows = [tuple(read(row)) for row in cursor.context.returned_default_rows or ()]
            hide_rows(cursor)
    return Ran(result, rows, where_of(result))


def _cut(result: Any, size: int) -> Result[Any]:
    """A result with its first columns alone, which are called and found as they are in the whole one.

    SQLAlchemy's own `columns()` knows them as the statement has them that it compiled first, of all of one form.
    """
    whole = result._metadata  # noqa: SLF001
    result = result.columns(*range(size))
    if isinstance(result, CursorResult):
        own: Any = cast("Any", result)._metadata  # noqa: SLF001
        own._keys = whole._keys[:size]  # noqa: SLF001
        own._keymap = {by: place for by, place in whole._keymap.items() if place[0] in range(size)}  # noqa: SLF001
        own._key_to_index = own._make_key_to_index(own._keymap, 0)  # noqa: SLF001
    return cast("Result[Any]", result)


def run_inserting(state: ORMExecuteState, dml: Any, columns: Sequence[Any], keys: Sequence[Any]) -> Ran:
    """Run an INSERT for the keys of its rows: from the app's own `RETURNING`, or from one that the app does not see."""
    if dml._returning:  # noqa: SLF001
        return run(state, dml, columns, telling=True)
    # An upsert is run for each set of parameters: of one statement with all their rows none may meet another.
    apart = {"insertmanyvalues_page_size": 1} if is_several(state) and replaces(dml) else {}
    asked = dml.returning(*keys)
    if is_several(state) and not isinstance(dml.table, Table):
        # Of a class that loads its subclasses inline it names the join, for which SQLAlchemy compiles no `RETURNING`.
        asked.table = target_of(dml)._annotate(dml.table._annotations)  # noqa: SLF001
    result, rows = _looked_at(state, asked, columns, **apart)
    connection = where_of(result)
    if is_bulk(state, dml):
        # SQLAlchemy gives an empty result for it.
        return Ran(no_rows(), rows, connection)
    cursor = _cursor_of(result)
    if cursor is not None:
        if rows is not None and cursor.context.dialect.name == "sqlite":
            # Its driver counts rows as they are fetched; others have no count of an INSERT, or the same.
            cursor.context._rowcount = len(rows)  # noqa: SLF001
            if is_several(state):
                # And it says no number of several rows.
                cursor.context.get_lastrowid = lambda: None
        hide_rows(cursor)
        return Ran(cursor, rows, connection)
    return Ran(result, rows, connection)


def where_of(result: Any) -> Connection | None:
    """The connection that a result comes from, where it says so."""
    cursor = _cursor_of(result)
    return None if cursor is None else cursor.context.root_connection


def _cursor_of(result: Any) -> Any:
    """The driver's result, which may be below that of an ORM; None where a listener of the app gave another."""
    cursor: Any = getattr(result, "raw", result)
    is_one = isinstance(cursor, CursorResult)
    return cast("Any", cursor) if is_one else None


def _nothing(_: object) -> tuple[()]:
    return ()


def _reader(cursor: Any, columns: Sequence[Any]) -> Any:
    if not cursor.returns_rows:
        # A listener of the app has put another statement in its place.
        return None
    if not columns:
        return _nothing
    try:
        return cursor._tuple_getter(columns)  # noqa: SLF001  # as SQLAlchemy does for synchronize_session="fetch"
    except KeyError:
        return None


def _looked_at(
    state: ORMExecuteState, statement: Any, columns: Sequence[Any], **options: Any
) -> tuple[Any, list[Any] | None]:
    """Run a statement with a `RETURNING`: its result, and these columns of its rows.

    Asynchronous sessions have the rows loaded as objects at once; here that comes after they have been looked at.
    """
    at_once = state.execution_options.get("prebuffer_rows", False)
    result: Any = state.invoke_statement(statement=statement, execution_options={**options, "prebuffer_rows": False})
    rows = _seen(result, columns)
    if at_once:
        prebuffer(result)
    return result, rows


def _seen(result: Any, columns: Sequence[Any]) -> list[tuple[Any, ...]] | None:
    """The columns of the rows of a result, which is as if it had not been looked at."""
    cursor = _cursor_of(result)
    if cursor is None:
        return None
    read = _reader(cursor, columns)
    if read is None:
        return None
    rows: Any = cursor.all()
    found = [tuple(read(row)) for row in rows]
    cursor._rewind(rows)  # noqa: SLF001  # as SQLAlchemy does where it has read the rows of a RETURNING first
    return found
