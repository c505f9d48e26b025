"""`insert()`: the rows by their keys, which are given, or which the database gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Insert, Result
from sqlalchemy.engine import CursorResult
from sqlalchemy.orm import Mapper, ORMExecuteState

from fastapi_cacheinval.contrib.sqlalchemy.catalogues import catalogued
from fastapi_cacheinval.contrib.sqlalchemy.given import key_of_row, on_conflict, removes, replaces, rows_given, sets
from fastapi_cacheinval.contrib.sqlalchemy.keys import Identity, key_columns, key_of, keys
from fastapi_cacheinval.contrib.sqlalchemy.running import (
    connection_for,
    is_bulk,
    is_several,
    may_show,
    options_of,
    run_inserting,
    where_of,
)
from fastapi_cacheinval.contrib.sqlalchemy.schema import decides_class, whole_of
from fastapi_cacheinval.contrib.sqlalchemy.sqlalchemy_private import (
    insert_for_keys,
    restore_key,
    restore_number,
    returned_by_default,
)
from fastapi_cacheinval.contrib.sqlalchemy.statements import parameter_sets, target_of
from fastapi_cacheinval.contrib.sqlalchemy.watch import Watch

__all__ = ["Inserts"]


@dataclass(frozen=True, slots=True)
class _Job:
    """One INSERT into one class; `of` is the class that each row which it writes is surely of."""

    state: ORMExecuteState
    dml: Any
    mapper: Mapper[Any]
    of: Mapper[Any]

    @property
    def bulk(self) -> bool:
        """Whether SQLAlchemy takes the parameters for rows of the class."""
        return is_bulk(self.state, self.dml)

    @property
    def returns(self) -> bool:
        """Whether the app has asked for columns of the rows."""
        return bool(self.dml._returning)  # noqa: SLF001

    @property
    def one_row(self) -> bool:
        """Whether there is one row, which SQLAlchemy itself asks for its key."""
        several = is_several(self.state) or self.dml._multi_values or self.dml.select is not None  # noqa: SLF001
        return not (several or self.returns or self.bulk)


class Inserts:
    """An INSERT of rows of one class."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._book = watch.book

    def run(self, state: ORMExecuteState, dml: Insert, mapper: Mapper[Any]) -> Result[Any] | None:
        """Run an INSERT and read the tags of its rows; None where they have none."""
        job = _Job(state, dml, mapper, _written_as(state, dml, mapper))
        if removes(dml) and self._book.concerns(job.of):
            along = [one for each in self._book.along(job.of) for one in each.self_and_descendants]
            what = "an INSERT that may replace rows"
            return self._watch.widely(state, [*job.of.self_and_descendants, *along], what)
        if not self._book.tagged(job.of):
            return None
        if self._book.whole(job.of):
            return self._unknown(job, "")
        if replaces(dml):
            if self._may_lose(job):
                return self._unknown(job, "an INSERT that may replace rows")
        else:
            given = [key_of_row(row, mapper) for row in rows_given(dml, state.parameters)]
            if given and None not in given:
                result = state.invoke_statement()
                self._read(job, [each for each in given if each is not None], where_of(result))
                return result
        return self._by_database(job)

    def _unknown(self, job: _Job, what: str) -> Result[Any]:
        return self._watch.widely(job.state, job.of.self_and_descendants, what)

    def _may_lose(self, job: _Job) -> bool:
        """Whether the old tags of a row that is there already may be others than its new ones."""
        names = on_conflict(job.dml)
        if not names:
            return names is None
        for each in self._book.family(job.of):
            rules = self._book.of(each)
            if rules.looked or sets(names, each, rules.keys | set(key_of(each)) | decides_class(each)):
                return True
        return False

    def _by_database(self, job: _Job) -> Result[Any]:
        state, dml, mapper, bulk = job.state, job.dml, job.mapper, job.bulk
        table: Any = target_of(dml)
        if bulk and len(mapper.tables) > 1:
            result, rows = insert_for_keys(state)
            found = [each for each in (key_of_row(row, mapper) for row in rows) if each is not None]
            self._read(job, found if len(found) == len(rows) else None, where_of(result))
            return result
        # SQLAlchemy writes all of the class's tables in its bulk INSERT, and the base's key comes first.
        columns = list(mapper.primary_key) if bulk else key_columns(mapper, table)
        if columns is None:
            return self._unknown(job, "an INSERT into a table without the primary key")
        if job.returns and not may_show(dml, columns):
            return self._unknown(job, "an INSERT that returns no primary keys, but text or two columns of one name")
        if job.one_row and not replaces(dml):
            result = state.invoke_statement()
            self._read(job, _given_by_database(result, columns), where_of(result))
            return result
        return self._by_returning(job, columns, table)

    def _by_returning(self, job: _Job, columns: list[Any], table: Any) -> Result[Any]:
        """Run an INSERT whose rows the database says by a `RETURNING`, of the app's own or a hidden one."""
        state, dml, mapper, bulk = job.state, job.dml, job.mapper, job.bulk
        self._watch.flush(state)
        connection = connection_for(state, mapper if bulk else None)
        dialect = connection.dialect
        able = dialect.insert_returning and table.implicit_returning
        if is_several(state) or bulk:
            able = able and dialect.insert_executemany_returning
        if not job.returns and not able:
            return self._unknown(job, "an INSERT without its primary keys")
        if dml._return_defaults and not job.returns and not job.one_row:  # noqa: SLF001
            return self._with_defaults(job, columns)
        number = False
        if job.one_row:
            # What SQLAlchemy makes of it says how the app's result gets its key.
            names = list(parameter_sets(state.parameters)[0])
            written: Any = dml.compile(dialect=dialect, column_keys=names or None)
            if written.implicit_returning:
                return self._says_itself(job, columns, written)
            number = bool(written.postfetch_lastrowid)
        if not job.returns:
            listed = catalogued(connection, table, options_of(state))
            if listed.hides("insert") or listed.replaces("insert"):
                return self._unknown(job, "an INSERT without its primary keys, which the database hides")
        ran = run_inserting(state, dml, columns, keys(mapper) if state.is_orm_statement else columns)
        if not job.returns and not bulk and dialect.is_async:
            restore_number(ran.result)
        if number:
            restore_key(ran.result)
        self._read(job, None if ran.rows is None else [Identity(row) for row in ran.rows], ran.connection)
        return ran.result

    def _with_defaults(self, job: _Job, columns: list[Any]) -> Result[Any]:
        """Run an INSERT whose rows the app has SQLAlchemy ask for by `return_defaults()`."""
        if job.bulk or replaces(job.dml) or not is_several(job.state):
            return self._unknown(job, "an INSERT of several rows at once with return_defaults()")
        result = job.state.invoke_statement()
        self._read(job, _given_by_database(result, columns), where_of(result))
        return result

    def _says_itself(self, job: _Job, columns: list[Any], written: Any) -> Result[Any]:
        """Run an upsert of one row for which SQLAlchemy itself asks the database for the key, if for all of it."""
        returned = [column.name for column in written.implicit_returning]
        if not {column.name for column in columns} <= set(returned):
            return self._unknown(job, "an upsert that is given a part of its primary key")
        result = job.state.invoke_statement()
        rows = returned_by_default(result)
        places = [returned.index(column.name) for column in columns]
        self._read(
            job, None if rows is None else [Identity(row[place] for place in places) for row in rows], where_of(result)
        )
        return result

    def _read(self, job: _Job, found: list[Identity] | None, connection: Connection | None) -> None:
        state = job.state
        if found is None:
            self._watch.ledger.add_everything(state.session)
            return
        where = connection or connection_for(state, job.mapper if job.bulk else None)
        places = {(job.of, each) for each in found}
        self._watch.looks.read_again(state.session, places, where, options_of(state), written=True)


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


def _given_by_database(result: Any, columns: list[Any]) -> list[Identity] | None:
    """The key that SQLAlchemy fetches for every INSERT of one row, or those that it is asked for; None without one."""
    if not isinstance(result, CursorResult):
        return None
    rows = [
        dict(zip(columns[0].table.primary_key, row or (), strict=False)) for row in result.inserted_primary_key_rows
    ]
    found = [Identity(row.get(column) for column in columns) for row in rows]
    return None if not found or any(None in each for each in found) else found
