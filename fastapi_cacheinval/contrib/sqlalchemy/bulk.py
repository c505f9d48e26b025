"""Statements that change rows without loading them: each is run as it is written, and its rows are found around it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any, cast

from sqlalchemy import Connection, Delete, Insert, Result, Table, Update
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import Mapper, ORMExecuteState

from fastapi_cacheinval.contrib.sqlalchemy.changing import Changes
from fastapi_cacheinval.contrib.sqlalchemy.conditions import called_once
from fastapi_cacheinval.contrib.sqlalchemy.errors import UnknownRows
from fastapi_cacheinval.contrib.sqlalchemy.given import removes
from fastapi_cacheinval.contrib.sqlalchemy.inserting import Inserts
from fastapi_cacheinval.contrib.sqlalchemy.linking import Links
from fastapi_cacheinval.contrib.sqlalchemy.running import connection_for, is_bulk, is_several, where_of
from fastapi_cacheinval.contrib.sqlalchemy.sqlalchemy_private import invoke_before, listeners_behind
from fastapi_cacheinval.contrib.sqlalchemy.statements import (
    entity_of,
    extra_tables,
    target_of,
    top_of,
    writes,
)
from fastapi_cacheinval.contrib.sqlalchemy.watch import Watch

__all__ = ["Bulk"]

# So many forms of queries are remembered to hold no write.
_FORMS = 1000


class _Last:
    """Listens for a collector behind the app's listeners, which may begin, route or replace what it looks at."""

    def __init__(self, bulk: Bulk) -> None:
        self._bulk = bulk
        self.heard = False

    def __call__(self, state: ORMExecuteState) -> Result[Any] | None:
        self.heard = True
        return self._bulk.do_orm_execute(state)


class Bulk:
    """Every statement of a session that has an INSERT, an UPDATE or a DELETE somewhere in it."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._book = watch.book
        self._changes = Changes(watch)
        self._inserts = Inserts(watch)
        self._links = Links(watch)
        self._harmless: set[Any] = set()

    def do_orm_execute(self, state: ORMExecuteState) -> Result[Any] | None:
        """Around each statement that changes rows; None lets anything else go by."""
        if state.is_column_load or state.is_relationship_load:
            return None
        found = self._writes(state)
        if not found:
            return None
        if not all(map(_of_collector, listeners_behind(state))):
            return self._behind_others(state, found)
        given: Any = state.parameters
        if not _can_be_read(given):
            if not self._list_rows(state):
                return None
            found = self._writes(state)
        try:
            result = self._run(state, found)
            if result is None and state.parameters is not given:
                # SQLAlchemy 2.0 would go on with what has been gone through.
                result = state.invoke_statement()
        except UnknownRows:
            raise
        except BaseException:
            self._failed(state, found)
            raise
        if result is not None:
            self._watch.settle(state.session, where_of(result) or self._connection(state))
        return result

    def _behind_others(self, state: ORMExecuteState, found: list[Any]) -> Result[Any]:
        last, session = _Last(self), state.session
        result = invoke_before(state, last)
        if not last.heard and session.in_transaction():
            # One of them has given a result of its own, and nobody knows what it has done for that.
            try:
                tags = self._book.any_row([one for each in found for one in self._affected(each)], "")
            except UnknownRows:
                self._watch.ledger.add_everything(session)
            else:
                self._watch.ledger.add(session, tags)
            self._watch.settle(session, None)
        return result

    def _writes(self, state: ORMExecuteState) -> list[Any]:
        """Every write in a statement; a query of a form that has been looked through before is not again."""
        statement: Any = state.statement
        if isinstance(statement, Insert | Update | Delete):
            return writes(statement, state.parameters if _can_be_read(state.parameters) else None)
        # SQLAlchemy makes it for its own cache of compiled statements: where it is the same, so is the form.
        form: Any = statement._generate_cache_key()  # noqa: SLF001
        key = None if form is None else form.key
        if key in self._harmless:
            return []
        found = writes(statement)
        if not found and key is not None:
            if len(self._harmless) >= _FORMS:
                self._harmless.clear()
            self._harmless.add(key)
        return found

    def _list_rows(self, state: ORMExecuteState) -> bool:
        """Have rows that are gone through once stand in a list; False where there are none, and nothing is written.

        SQLAlchemy takes these for a class alone: when it has flushed it makes a dictionary of each, at once.
        """
        statement: Any = state.statement
        if not (isinstance(statement, Insert | Update) and is_bulk(state, statement)):
            raise ArgumentError("mapping or list expected for parameters")
        self._watch.flush(state)
        rows = [dict(each) for each in cast("Any", state.parameters)]
        if rows:
            # None in the place of none would be a row of defaults.
            state.parameters = rows
        return bool(rows)

    def _run(self, state: ORMExecuteState, found: list[Any]) -> Result[Any] | None:
        top = top_of(state.statement)
        table = None if top is None else target_of(top)
        plain = len(found) == 1 and top is found[0] and table is not None and extra_tables(top) <= _written(state, top)
        if not plain or state.session.connection_callable is not None:
            affected = list(dict.fromkeys(one for each in found for one in self._affected(each)))
            if not any(self._book.of(mapper) for mapper in affected):
                return None
            return self._watch.widely(state, affected, _what(state, found, top))
        if top is state.statement and not isinstance(top, Insert):
            state.statement = top = called_once(top, state.parameters)
        mapper = entity_of(top) or self._book.owner(table)
        return self._one_table(state, top, table, mapper)

    def _one_table(
        self, state: ORMExecuteState, top: Any, table: Any, mapper: Mapper[Any] | None
    ) -> Result[Any] | None:
        # Classes of another hierarchy, or on a join with this table: which of their rows are met nobody looks up.
        users = self._book.users(table)
        others = [each for each in users if mapper is None or each.base_mapper is not mapper.base_mapper]
        tags = self._book.any_row(others, "a statement on a table that it shares with another class", alone=True)
        if mapper is None:
            result = self._links.run(state, top, cast("Table", table))
        elif isinstance(top, Insert):
            result = self._inserts.run(state, top, mapper)
        else:
            result = self._changes.run(state, top, mapper)
        if tags:
            result = state.invoke_statement() if result is None else result
            self._watch.ledger.add(state.session, tags)
        return result

    def _affected(self, dml: Any) -> Iterable[Mapper[Any]]:
        """The classes whose tags a write may change, whatever its rows are."""
        return self._book.affected(extra_tables(dml), removes=isinstance(dml, Delete) or removes(dml))

    # -- its end --------------------------------------------------------------------------------

    def _connection(self, state: ORMExecuteState) -> Connection | None:
        if state.session.connection_callable is not None:
            return None
        top = top_of(state.statement)
        return connection_for(state, entity_of(top) if top is not None and is_bulk(state, top) else None)

    def _failed(self, state: ORMExecuteState, found: list[Any]) -> None:
        """A statement that fails changes nothing, but one of several sets of parameters, which fails in their midst."""
        session = state.session
        if not session.in_transaction():
            return
        partly = is_several(state) or any(getattr(one, "_prefixes", ()) for one in found)
        mappers = [mapper for one in found for mapper in self._affected(one)]
        if partly and any(self._book.of(mapper) for mapper in mappers):
            self._watch.ledger.add_everything(session)
        connection = None
        with contextlib.suppress(SQLAlchemyError):
            # The error of the statement is the one to be heard of.
            connection = self._connection(state)
        self._watch.settle(session, connection)


def _can_be_read(parameters: Any) -> bool:
    """Whether parameters are one or more sets of them, as SQLAlchemy describes these."""
    if not parameters or isinstance(parameters, Mapping):
        return True
    return isinstance(parameters, list | tuple) and isinstance(parameters[0], Mapping)


def _of_collector(listener: Any) -> bool:
    return isinstance(listener, _Last) or isinstance(getattr(listener, "__self__", None), Bulk)


def _written(state: ORMExecuteState, top: Any) -> set[Any]:
    """The tables that a write may be about: its own, or those of its class where SQLAlchemy writes all of them."""
    mapper = entity_of(top)
    return {target_of(top)} if mapper is None or not is_bulk(state, top) else set(mapper.tables)


def _what(state: ORMExecuteState, found: list[Any], top: Any) -> str:
    if state.session.connection_callable is not None:
        return "a statement of a session with several databases"
    if len(found) > 1 or top is None:
        return "a statement with another write inside it"
    return "a statement on an alias, or on several tables at once"
