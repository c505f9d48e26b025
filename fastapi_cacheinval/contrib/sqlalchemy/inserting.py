"""`insert()`: the rows by their keys, which are given, or which the database gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from sqlalchemy import Connection, Insert, Result
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import Mapper, ORMExecuteState

from fastapi_cacheinval.contrib.sqlalchemy.given import key_of_row, on_conflict, removes, replaces, rows_given, sets
from fastapi_cacheinval.contrib.sqlalchemy.running import (
    connection_for,
    is_bulk,
    options_of,
    run_inserting,
    shows,
    where_of,
)
from fastapi_cacheinval.contrib.sqlalchemy.schema import (
    Identity,
    decides_class,
    key_columns,
    key_of,
    keys,
    whole_of,
)
from fastapi_cacheinval.contrib.sqlalchemy.sqlalchemy_private import (
    insert_for_keys,
    restore_key,
    restore_number,
    returned_by_default,
)
from fastapi_cacheinval.contrib.sqlalchemy.statements import target_of
from fastapi_cacheinval.contrib.sqlalchemy.watch import Watch

__all__ = ["Inserts"]


class Inserts:
    """An INSERT of rows of one class."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._book = watch.book

    def run(self, state: ORMExecuteState, dml: Insert, mapper: Mapper[Any]) -> Result[Any] | None:
        """Run an INSERT and read the tags of its rows; None where they have none."""
        of = _written_as(state, dml, mapper)
        if removes(dml) and self._book.concerns(of):
            along = [one for each in self._book.along(of) for one in each.self_and_descendants]
            what = "an INSERT that may replace rows"
            return self._watch.widely(state, [*of.self_and_descendants, *along], what)
        if not self._book.tagged(of):
            return None
        if self._book.whole(of):
            return self._unknown(state, of, "")
        if replaces(dml):
            if self._may_lose(dml, of):
                return self._unknown(state, of, "an INSERT that may replace rows")
        else:
            given = [key_of_row(row, mapper) for row in rows_given(dml, state.parameters)]
            if given and None not in given:
                result = state.invoke_statement()
                self._read(state, dml, mapper, [each for each in given if each is not None], where_of(result))
                return result
        return self._by_database(state, dml, mapper)

    def _unknown(self, state: ORMExecuteState, mapper: Mapper[Any], what: str) -> Result[Any]:
        return self._watch.widely(state, mapper.self_and_descendants, what)

    def _may_lose(self, dml: Insert, mapper: Mapper[Any]) -> bool:
        """Whether the old tags of a row that is there already may be others than its new ones."""
        names = on_conflict(dml)
        if not names:
            return names is None
        for each in self._book.family(mapper):
            rules = self._book.of(each)
            if rules.looked or sets(names, each, rules.keys | set(key_of(each)) | decides_class(each)):
                return True
        return False

    def _by_database(self, state: ORMExecuteState, dml: Any, mapper: Mapper[Any]) -> Result[Any]:
        table: Any = target_of(dml)
        own = key_columns(mapper, table)
        bulk = is_bulk(state, dml)
        if bulk and len(mapper.tables) > 1 and not dml._returning:  # noqa: SLF001
            result, rows = insert_for_keys(state)
            found = [each for each in (key_of_row(row, mapper) for row in rows) if each is not None]
            self._read(state, dml, mapper, found if len(found) == len(rows) else None, where_of(result))
            return result
        # SQLAlchemy writes all of the class's tables in its bulk INSERT, and the base's key comes first.
        columns = list(mapper.primary_key) if bulk else own
        if columns is None:
            return self._unknown(state, mapper, "an INSERT into a table without the primary key")
        if dml._returning and not shows(dml, columns):  # noqa: SLF001
            return self._unknown(state, mapper, "an INSERT that returns no primary keys")
        if not dml._returning and not replaces(dml) and not bulk and _is_one_row(state, dml):  # noqa: SLF001
            result = state.invoke_statement()
            self._read(state, dml, mapper, _given_by_database(result, columns), where_of(result))
            return result
        dialect = connection_for(state, mapper if bulk else None).dialect
        able = dialect.insert_returning and table.implicit_returning
        if state.is_executemany or bulk:
            able = able and dialect.insert_executemany_returning
        if not dml._returning and not able:  # noqa: SLF001
            return self._unknown(state, mapper, "an INSERT without its primary keys")
        one, number = not dml._returning and not bulk and _is_one_row(state, dml), False  # noqa: SLF001
        if one:
            # What SQLAlchemy makes of it says how the app's result gets its key.
            names = list(cast("Mapping[str, Any]", state.parameters or {}))
            written: Any = dml.compile(dialect=dialect, column_keys=names or None)
            if written.implicit_returning:
                return self._says_itself(state, dml, mapper, columns, written)
            number = bool(written.postfetch_lastrowid)
        asked = keys(mapper) if state.is_orm_statement else columns
        ran = run_inserting(state, dml, columns, asked)
        if not dml._returning and not bulk and dialect.is_async:  # noqa: SLF001
            restore_number(ran.result)
        if number:
            restore_key(ran.result)
        self._read(state, dml, mapper, ran.rows, ran.connection)
        return ran.result

    def _says_itself(
        self, state: ORMExecuteState, dml: Any, mapper: Mapper[Any], columns: list[Any], written: Any
    ) -> Result[Any]:
        """Run an upsert of one row for which SQLAlchemy itself asks the database for the key, if for all of it."""
        returned = [column.name for column in written.implicit_returning]
        if not {column.name for column in columns} <= set(returned):
            return self._unknown(state, mapper, "an upsert that is given a part of its primary key")
        result = state.invoke_statement()
        rows = returned_by_default(result)
        places = [returned.index(column.name) for column in columns]
        found = None if rows is None else [tuple(row[place] for place in places) for row in rows]
        self._read(state, dml, mapper, found, where_of(result))
        return result

    def _read(
        self,
        state: ORMExecuteState,
        dml: Any,
        mapper: Mapper[Any],
        found: list[Identity] | None,
        connection: Connection | None,
    ) -> None:
        if found is None:
            self._watch.ledger.add_everything(state.session)
            return
        where = connection or connection_for(state, mapper if is_bulk(state, dml) else None)
        of = _written_as(state, dml, mapper)
        places = {(of, tuple(each)) for each in found}
        self._watch.flushes.read_again(state.session, places, where, options_of(state))


def _written_as(state: ORMExecuteState, dml: Any, mapper: Mapper[Any]) -> Mapper[Any]:
    """The class that each row which an INSERT writes is surely of.

    An upsert may meet a row of any class of the hierarchy, and a row whose discriminator is given, or comes from a
    default, is of the class that this says.
    """
    deciding = decides_class(mapper)
    columns = [column for key in deciding for column in mapper.get_property(key).columns]
    by_default = any(one.default is not None or one.server_default is not None for one in columns)
    given = {name for row in rows_given(dml, state.parameters) for name in row}
    if replaces(dml) or (deciding and (by_default or dml.select is not None or sets(given, mapper, deciding))):
        return whole_of(mapper)
    return mapper


def _is_one_row(state: ORMExecuteState, dml: Any) -> bool:
    return not state.is_executemany and not dml._multi_values and dml.select is None  # noqa: SLF001


def _given_by_database(result: Any, columns: list[Any]) -> list[Identity] | None:
    """The key that SQLAlchemy fetches for every INSERT of one row; None where it has not."""
    if not isinstance(result, CursorResult):
        return None
    keyed = dict(zip(columns[0].table.primary_key, result.inserted_primary_key or (), strict=False))
    key = tuple(keyed.get(column) for column in columns)
    return None if None in key else [key]
