"""Statements on association tables: the tags of the rows on both sides are what changes.

Nothing is written in these rows, and nobody waits for them: they are read before and after, and not locked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Insert, Result, Update, func, select
from sqlalchemy.orm import ORMExecuteState

from fastapi_cacheinval.contrib.sqlalchemy.flushing import Places
from fastapi_cacheinval.contrib.sqlalchemy.given import identity_in, on_conflict, rows_given
from fastapi_cacheinval.contrib.sqlalchemy.reading import reading
from fastapi_cacheinval.contrib.sqlalchemy.running import connection_for, options_of, run, tells
from fastapi_cacheinval.contrib.sqlalchemy.schema import Link
from fastapi_cacheinval.contrib.sqlalchemy.statements import is_own, is_wild, target_of
from fastapi_cacheinval.contrib.sqlalchemy.watch import Watch

__all__ = ["Links"]


class Links:
    """A statement on an association table, for those of its sides that have tags."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._book = watch.book

    def run(self, state: ORMExecuteState, dml: Any, named: list[Link]) -> Result[Any]:
        """Run a statement with what is to be read around it."""
        self._watch.flush(state)
        if isinstance(dml, Insert):
            return self._insert(state, dml, named)
        if isinstance(dml, Update):
            # Where its rows point to afterwards cannot be found by what they were found by.
            return self._unknown(state, named, "an UPDATE of links")
        if is_wild(dml):
            return self._unknown(state, named, "a DELETE of links that picks rows by chance")
        return self._delete(state, dml, named)

    def _unknown(self, state: ORMExecuteState, named: Sequence[Link], what: str) -> Result[Any]:
        return self._watch.widely(state, [one for link in named for one in link.other.self_and_descendants], what)

    def _insert(self, state: ORMExecuteState, dml: Any, named: list[Link]) -> Result[Any]:
        places: Places = set()
        rows = rows_given(dml, state.parameters)
        for link in named:
            found = [identity_in(row, link.named or ("",)) for row in rows]
            if not found or None in found:
                return self._unknown(state, named, "an INSERT of links without their keys")
            places.update((link.other, each) for each in found if each is not None)
        if on_conflict(dml) != set():
            return self._unknown(state, named, "an INSERT that may replace links")
        connection, options = connection_for(state, None), options_of(state)
        self._watch.flushes.read_again(state.session, places, connection, options)
        result = state.invoke_statement()
        self._watch.flushes.read_again(state.session, places, connection, options)
        return result

    def _delete(self, state: ORMExecuteState, dml: Any, named: list[Link]) -> Result[Any]:
        session, connection, options = state.session, connection_for(state, None), options_of(state)
        table: Any = target_of(dml)
        columns = [table.c[name] for link in named for name in link.named or ()]
        told = None not in [link.named for link in named] and tells(state, dml, connection, columns)
        if not told and not is_own(dml):
            return self._unknown(state, named, "a DELETE of links by a condition that other writers may change")
        places: Places = set()
        with reading(connection, self._book, options) as reader:
            for link in named:
                query: Any = link.of_rows(None).where(*dml._where_criteria)  # noqa: SLF001
                places.update((link.other, each) for each in reader.identities(query, state.parameters))
            size: Any = select(func.count()).select_from(table).where(*dml._where_criteria)  # noqa: SLF001
            count = sum(each[0] for each in reader.identities(size, state.parameters))
        self._watch.flushes.read_again(session, places, connection, options)
        ran = run(state, dml, columns, telling=told)
        if not told:
            agrees = ran.count == count
        else:
            deleted = self._sides(named, ran.rows or [])
            agrees = ran.rows is not None and deleted <= places
            places |= deleted
        if not agrees:
            self._watch.ledger.add_everything(session)
        self._watch.flushes.read_again(session, places, ran.connection or connection, options)
        return ran.result

    @staticmethod
    def _sides(named: list[Link], rows: list[tuple[Any, ...]]) -> Places:
        places: Places = set()
        for row in rows:
            begin = 0
            for link in named:
                size = len(link.named or ())
                places.add((link.other, tuple(row[begin : begin + size])))
                begin += size
        return places
