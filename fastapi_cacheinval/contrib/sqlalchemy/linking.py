"""Statements on tables of no class: association rows change the tags of both sides, and deletes take others along.

Nothing is written in the rows on both sides, and nobody waits for them: they are read before and after, and not locked.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Delete, Insert, Result, Table, Update, select
from sqlalchemy.orm import ORMExecuteState

from fastapi_cacheinval.contrib.sqlalchemy.conditions import doubt_of, is_wild
from fastapi_cacheinval.contrib.sqlalchemy.given import identity_in, on_conflict, removes, rows_given
from fastapi_cacheinval.contrib.sqlalchemy.keys import Identity, row_key
from fastapi_cacheinval.contrib.sqlalchemy.locking import take_turn
from fastapi_cacheinval.contrib.sqlalchemy.looking import Places
from fastapi_cacheinval.contrib.sqlalchemy.running import connection_for, is_replaced, options_of, run, tells
from fastapi_cacheinval.contrib.sqlalchemy.schema import Link
from fastapi_cacheinval.contrib.sqlalchemy.statements import target_of
from fastapi_cacheinval.contrib.sqlalchemy.watch import Watch

__all__ = ["Links"]


class Links:
    """A statement on a table that no class is mapped to, for the classes with tags that it links or takes along."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._book = watch.book

    def run(self, state: ORMExecuteState, dml: Any, table: Table) -> Result[Any] | None:
        """Run a statement with what is to be read around it; None where it concerns no tag."""
        named = [link for link in self._book.links if link.secondary is table and self._book.tagged(link.other)]
        replacing = removes(dml)
        ends = replacing or isinstance(dml, Delete)
        if not named and not (ends and any(self._book.tagged(each) for each in self._book.along(table))):
            return None
        self._watch.flush(state)
        if isinstance(dml, Update):
            # Where its rows point to afterwards cannot be found by what they were found by.
            return self._unknown(state, table, "an UPDATE of links", ends=replacing)
        if replacing or (isinstance(dml, Insert) and on_conflict(dml) != set()):
            return self._unknown(state, table, "an INSERT that may replace rows", ends=True)
        if isinstance(dml, Insert):
            return self._insert(state, dml, named)
        if is_wild(dml):
            return self._unknown(state, table, "a DELETE that picks rows by chance", ends=True)
        if is_replaced(state, dml, connection_for(state, None)):
            return self._unknown(state, table, "a DELETE that a rule replaces", ends=True)
        return self._delete(state, dml, table, named)

    def _unknown(self, state: ORMExecuteState, table: Any, what: str, *, ends: bool) -> Result[Any]:
        return self._watch.widely(state, self._book.affected([table], removes=ends), what)

    def _insert(self, state: ORMExecuteState, dml: Any, named: list[Link]) -> Result[Any]:
        places: Places = set()
        rows = rows_given(dml, state.parameters)
        for link in named:
            found = [identity_in(row, link.named or ("",)) for row in rows]
            if not found or None in found:
                return self._unknown(state, target_of(dml), "an INSERT of links without their keys", ends=False)
            places.update((link.other, each) for each in found if each is not None)
        connection, options = connection_for(state, None), options_of(state)
        take_turn(connection, [target_of(dml)], options)
        self._watch.looks.read_again(state.session, places, connection, options, ahead=True)
        result = state.invoke_statement()
        there = _are_there(connection, target_of(dml), [name for link in named for name in link.named or ()])
        self._watch.looks.read_again(state.session, places, connection, options, written=there, own=False)
        return result

    def _delete(self, state: ORMExecuteState, dml: Any, table: Table, named: list[Link]) -> Result[Any]:
        session, connection, options = state.session, connection_for(state, None), options_of(state)
        own = row_key(table)
        columns = [*own, *(table.c[name] for link in named for name in link.named or ())]
        told = None not in [link.named for link in named] and tells(state, dml, connection, columns)
        doubt = None if told else doubt_of(dml)
        if doubt is not None:
            return self._unknown(state, table, doubt, ends=True)
        take_turn(connection, [table], options)
        places: Places = set()
        with self._watch.looks.reading(session, connection, options, gone=True) as reader:
            ending = select(*own).where(*dml._where_criteria)  # noqa: SLF001
            rows = reader.identities(ending, state.parameters, written=True)
            for link in named:
                told_here = reader.tells(link)
                if told_here is None:
                    continue
                query: Any = link.of_rows(None, told=told_here).where(*dml._where_criteria)  # noqa: SLF001
                found = reader.identities(query, state.parameters, written=told_here)
                places.update((link.other, each) for each in found)
            if self._book.carries(table):
                self._watch.looks.along(session, reader, table, rows, places)
        self._watch.looks.read_again(session, places, connection, options, ahead=True)
        ran = run(state, dml, columns, telling=told)
        if not told:
            agrees = ran.count == len(rows)
        else:
            deleted = self._sides(named, [row[len(own) :] for row in ran.rows or []])
            ended = {Identity(row[: len(own)]) for row in ran.rows or []}
            known = not self._book.carries(table) or ended <= set(rows)
            agrees = ran.rows is not None and known and deleted <= places
            places |= deleted
        if not agrees:
            self._watch.ledger.add_everything(session)
        self._watch.looks.read_again(session, places, ran.connection or connection, options)
        return ran.result

    @staticmethod
    def _sides(named: list[Link], rows: list[tuple[Any, ...]]) -> Places:
        places: Places = set()
        for row in rows:
            begin = 0
            for link in named:
                size = len(link.named or ())
                places.add((link.other, Identity(row[begin : begin + size])))
                begin += size
        return places


def _are_there(connection: Connection, table: Table, names: list[str]) -> bool:
    """Whether foreign keys see to it that the rows which these columns of a new row name are there."""
    if connection.dialect.name == "sqlite":
        # It keeps them only if it is asked to.
        return False
    return all(any(not key.deferrable for key in table.c[name].foreign_keys) for name in names)
