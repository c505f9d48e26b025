"""Statements that change rows without loading them: which rows, and what their tags are, is read around them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Delete, Insert, Result, Update, select
from sqlalchemy.orm import Mapper, ORMExecuteState

from fastapi_cacheinval.contrib.sqlalchemy.errors import UnknownRows
from fastapi_cacheinval.contrib.sqlalchemy.flushing import Flushes, Places
from fastapi_cacheinval.contrib.sqlalchemy.given import identity_in, key_is_set, key_of_row, replaces, rows_given
from fastapi_cacheinval.contrib.sqlalchemy.ledger import Ledger
from fastapi_cacheinval.contrib.sqlalchemy.reading import connection_of, mapper_of, reading
from fastapi_cacheinval.contrib.sqlalchemy.rules import RuleBook
from fastapi_cacheinval.contrib.sqlalchemy.schema import Identity, Link, among, key_of, keys, links

__all__ = ["Bulk"]

# A statement is narrowed to so many rows that have been read; past it they are counted.
_NARROWED = 400


class Bulk:
    """ORM-enabled `update()`, `delete()` and `insert()` through a session, the same on tables, association tables."""

    def __init__(self, book: RuleBook, ledger: Ledger, flushes: Flushes) -> None:
        self._book = book
        self._ledger = ledger
        self._flushes = flushes

    def do_orm_execute(self, state: ORMExecuteState) -> Result[Any] | None:
        """Around each statement that changes rows; None lets anything else go by."""
        statement: Any = state.statement
        if not isinstance(statement, Insert | Update | Delete):
            return None
        mapper = state.bind_mapper or self._book.owner(statement.table)
        if mapper is not None:
            if isinstance(statement, Insert):
                return self._insert(state, statement, mapper) if self._book.of(mapper) else None
            return self._change(state, statement, mapper)
        named = [link for link in links(self._book.mappers) if link.secondary is statement.table]
        return self._associate(state, statement, named) if named else None

    def _flush(self, state: ORMExecuteState) -> None:
        # As the statement itself would: its rows are looked for before it is run.
        if state.session.autoflush and state.execution_options.get("autoflush", True):
            state.session.flush()

    def _wide(self, mapper: Mapper[Any], what: str) -> tuple[str, ...]:
        rules = self._book.of(mapper)
        if rules and not rules.wide:
            raise UnknownRows(mapper.class_.__name__, what)
        return rules.wide

    # -- rows that are there --------------------------------------------------------------------

    def _change(self, state: ORMExecuteState, statement: Update | Delete, mapper: Mapper[Any]) -> Result[Any] | None:
        session, deletes = state.session, isinstance(statement, Delete)
        wide = self._book.of(mapper).wide
        if not self._book.concerns(mapper) if deletes else not self._book.tagged(mapper):
            return None
        if wide and not deletes:
            return self._widely(state, wide)
        self._flush(state)
        if not deletes and key_is_set(statement, mapper):
            raise UnknownRows(mapper.class_.__name__, "an UPDATE of a primary key")
        again: Places = set()
        found = [] if deletes else self._named(state, statement, mapper)
        by_key = bool(found)
        with reading(connection_of(session, mapper), self._book) as reader:
            if not by_key:
                query: Any = select(*keys(mapper)).with_for_update(key_share=True)
                if statement.whereclause is not None:
                    query = query.where(statement.whereclause)
                found = reader.identities(query, state.parameters)
            self._ledger.add(session, [*wide, *reader.tags(mapper, found, lock=True)])
            if deletes:
                self._flushes.along(session, reader, mapper, found, again)
            else:
                again.update((mapper, each) for each in found)
        if len(found) <= _NARROWED and not isinstance(state.parameters, list):
            # What others have made to match since is not changed, as if this had been run before them.
            result = state.invoke_statement(statement=statement.where(among(mapper, found)))
        else:
            result = state.invoke_statement()
            if not by_key and getattr(result, "rowcount", -1) > len(found):
                # Those found are locked; what is more has come to match since.
                self._ledger.add(session, self._wide(mapper, "a statement that met rows of other writers"))
        self._flushes.read_again(session, again)
        return result

    @staticmethod
    def _named(state: ORMExecuteState, statement: Any, mapper: Mapper[Any]) -> list[Identity]:
        """The rows of an UPDATE by primary key, which stand in its parameters; none for any other."""
        if not state.is_orm_statement or statement.whereclause is not None or not isinstance(state.parameters, list):
            return []
        if state.execution_options.get("dml_strategy", "auto") not in ("auto", "bulk"):
            return []
        found = [key_of_row(row, mapper) for row in rows_given(None, state.parameters)]
        return [] if None in found else [each for each in found if each is not None]

    def _widely(self, state: ORMExecuteState, wide: tuple[str, ...]) -> Result[Any]:
        result = state.invoke_statement()
        self._ledger.add(state.session, wide)
        return result

    # -- association tables ---------------------------------------------------------------------

    def _associate(self, state: ORMExecuteState, statement: Any, named: list[Link]) -> Result[Any]:
        session = state.session
        self._flush(state)
        again: Places = set()
        for link in named:
            if isinstance(statement, Insert):
                rows = rows_given(statement, state.parameters)
                found = [identity_in(row, link.named or ("",)) for row in rows]
                again.update((link.other, each) for each in found if each is not None)
                if not found or None in found:
                    self._ledger.add(session, self._wide(link.other, "an INSERT of links without their keys"))
                continue
            with reading(connection_of(session, link.other), self._book) as reader:
                these = reader.identities(link.of_rows(statement.whereclause), state.parameters)
            again.update((link.other, each) for each in these)
            if isinstance(statement, Update):
                # Where its rows point to afterwards cannot be found by what they were found by.
                self._ledger.add(session, self._wide(link.other, "an UPDATE of links"))
        self._flushes.read_again(session, again, lock=True)
        result = state.invoke_statement()
        self._flushes.read_again(session, again)
        return result

    # -- new rows -------------------------------------------------------------------------------

    def _insert(self, state: ORMExecuteState, statement: Insert, mapper: Mapper[Any]) -> Result[Any] | None:
        session, rules = state.session, self._book.of(mapper)
        if rules.wide:
            return self._widely(state, rules.wide)
        if replaces(statement) and (rules.functions or not rules.keys <= set(key_of(mapper))):
            raise UnknownRows(mapper.class_.__name__, "an INSERT that may replace rows")
        given = [key_of_row(row, mapper) for row in rows_given(statement, state.parameters)]
        if given and None not in given:
            result = state.invoke_statement()
            self._flushes.read_again(session, {(mapper, each) for each in given if each is not None})
            return result
        return self._insert_returning(state, statement, mapper)

    def _insert_returning(self, state: ORMExecuteState, statement: Any, mapper: Mapper[Any]) -> Result[Any]:
        """The keys that the database gives come back from it; a result of rows where the statement asks for none."""
        session, columns = state.session, {column.key for column in mapper.primary_key}
        own = list(statement.exported_columns.keys())
        dialect = connection_of(session, mapper).dialect
        if own and not columns <= set(own):
            raise UnknownRows(mapper.class_.__name__, "an INSERT that returns no primary keys")
        if not own and not (dialect.insert_returning and dialect.insert_executemany_returning):
            raise UnknownRows(mapper.class_.__name__, "an INSERT without its primary keys")
        asked = statement if own else statement.returning(*keys(mapper))
        frozen = state.invoke_statement(statement=asked).freeze()
        found: set[tuple[Mapper[Any], Identity]] = set()
        for row in frozen():
            target: Any = next((each for each in row if isinstance(each, mapper.class_)), None)
            if target is None:
                key = tuple(getattr(row, name, None) for name in key_of(mapper))
            else:
                key = tuple(mapper_of(target).primary_key_from_instance(target))
            if None in key:
                raise UnknownRows(mapper.class_.__name__, "an INSERT that returns its primary keys by other names")
            found.add((mapper, key))
        self._flushes.read_again(session, found)
        return frozen()
