"""Locking the rows that are looked at before a change, in the order in which the change itself takes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from sqlalchemy import Table, event, select
from sqlalchemy.orm import Mapper, ORMExecuteState, Session, lazyload

from fastapi_cacheinval.contrib.sqlalchemy.keys import (
    Identity,
    among,
    key_columns,
    keys,
    kinds_of,
    matching,
    row_key,
    together,
)
from fastapi_cacheinval.contrib.sqlalchemy.locking import is_outdated, is_united, locked, look
from fastapi_cacheinval.contrib.sqlalchemy.ordering import by_key, is_by_key, order_of, parts, turns
from fastapi_cacheinval.contrib.sqlalchemy.snapshots import has_view, is_innodb, makes_views
from fastapi_cacheinval.contrib.sqlalchemy.sqlalchemy_private import tables_in_order
from fastapi_cacheinval.contrib.sqlalchemy.statements import parameter_sets

__all__ = ["Locker"]


class Locker:
    """The keys of rows by queries, and locks of these rows."""

    def __init__(self, session: Session, *, ahead: bool, ended: bool) -> None:
        connection = session.connection()
        self._session = session
        self._is_ahead = ahead
        self._may_be_old = is_innodb(connection) and not ended
        # SQLite has one writer at a time, and refuses the write of one that has read older rows.
        self._is_alone = ended or connection.dialect.name == "sqlite"
        # Whether a plain query leaves the app's view as it is. MariaDB's first one makes the view.
        self._reads = ended or not makes_views(connection) or has_view(connection)
        self.locks = self._may_be_old and not (ahead and self._reads)
        if not self._reads:
            event.listen(session, "do_orm_execute", self._loading)

    def now(self, query: Any, *, written: bool = False) -> Any:
        """A query that reads rows as they stand, and not as they stood when the transaction first read.

        MariaDB does that only where it locks them: as the write does for those that are about to be, or have just been,
        `written`. Others are not locked, and read once more after the commit.
        """
        return query.with_for_update(read=not written) if self.locks and (written or not self._reads) else query

    def _loading(self, state: ORMExecuteState) -> None:
        """Lock the rows that a function loads besides its object, so that the load makes no view of the transaction."""
        query: Any = state.statement
        if state.is_select and getattr(query, "_for_update_arg", query) is None:
            state.statement = self.now(query)

    def in_order(self, mapper: Mapper[Any], query: Any, part: list[Identity]) -> Any:
        """A query that finds these rows of a class, and locks no others: InnoDB locks all that it passes."""
        found = query.where(self._among(keys(mapper), part, kinds_of(mapper)))
        return found.order_by(*keys(mapper)) if self.locks else found

    def _among(self, columns: Sequence[Any], part: list[Identity], kinds: Sequence[Any]) -> Any:
        return (together if self.locks else matching)(columns, part, kinds)

    def unlocked(self, mapper: Mapper[Any]) -> list[Any]:
        """Leaves the relationships that are joined to a class out of a query that locks its rows."""
        joined = [each for each in mapper.relationships if each.lazy in ("joined", False)] if self.locks else []
        return [lazyload(getattr(mapper.class_, each.key)) for each in joined]

    def identities(self, query: Any, parameters: Any = None, *, written: bool = False) -> list[Identity]:
        """The keys that a query finds now."""
        now = self.now(query, written=written)
        return [Identity(row) for each in parameter_sets(parameters) for row in self._session.execute(now, each)]

    def all_of(self, queries: Iterable[Any], *, written: bool) -> list[Identity]:
        """The keys that several queries find now."""
        return [one for query in queries for one in self.identities(query, written=written)]

    def _is_outdated(self, mapper: Mapper[Any], part: list[Identity]) -> bool:
        """Whether others have changed these rows, which are not locked, since the transaction began to read."""
        query = select(*keys(mapper)).where(among(mapper, part))
        return bool(part) and not self._is_ahead and is_outdated(self._session, mapper, query)

    def present(
        self,
        mapper: Mapper[Any],
        given: Iterable[Identity],
        kinds: Sequence[Any] | None = None,
        *,
        gone: bool = False,
        listed: bool = False,
        of: Any = None,
    ) -> list[Identity]:
        """Those of the rows that are there, locked, by values of these types; `gone` where they will be deleted.

        `of` is a column of the table whose rows are locked alone. `listed` where they will be written in this order,
        and not in that of their keys.
        """
        found: list[Identity] = []
        for part in parts(given if listed else by_key(given)):
            found += self.in_turn(mapper, select(*keys(mapper)), part, kinds, gone=gone, of=of)
        return found

    def in_turn(
        self,
        mapper: Mapper[Any],
        query: Any,
        part: list[Identity],
        kinds: Sequence[Any] | None = None,
        *,
        gone: bool = False,
        of: Any = None,
    ) -> Iterator[Identity]:
        """What a query over a class finds of these rows, locked in this order; `gone` where they will be deleted."""
        connection, kinds = self._session.connection(), kinds or kinds_of(mapper)
        for each in turns(part, connection):
            found = query.where(self._among(keys(mapper), each, kinds))
            if not self.locks:
                # Else `locked` has them by their keys.
                found = found.order_by(*order_of(keys(mapper), each, kinds, connection))
            yield from self.locked(mapper, found, gone=gone, of=of)

    def take(self, places: Mapping[Mapper[Any], list[Identity]], *, gone: bool = False, listed: bool = False) -> None:
        """Lock rows of classes of one hierarchy as their write does, where the looks at them would do it otherwise.

        SQLAlchemy writes one table after the other, and in each the rows of all classes by their keys, or as `listed`.
        """
        every = {table: None for mapper in places for table in mapper.tables}
        if self._session.connection().dialect.name == "sqlite" or not places:
            return
        if len(places) == 1 and len(every) == 1 and (not listed or all(map(is_by_key, places.values()))):
            return
        order = tables_in_order(next(iter(places)))
        for table in reversed(order) if gone else order:
            given = [(mapper, each) for mapper, those in places.items() if table in mapper.tables for each in those]
            if given:
                mapper, these = given[0][0], [each for _, each in given]
                columns = key_columns(mapper, table)
                if columns is not None:
                    self._take(mapper, columns, kinds_of(mapper), these if listed else by_key(these), gone=gone)

    def _take(
        self,
        mapper: Mapper[Any],
        columns: Sequence[Any],
        kinds: Sequence[Any],
        these: Iterable[Identity],
        *,
        gone: bool,
    ) -> None:
        """Lock the rows of a class's table whose key columns, of these types, have these values, in this order."""
        connection = self._session.connection()
        for part in parts(these):
            for each in turns(part, connection):
                query = select(*columns).where(self._among(columns, each, kinds))
                query = query.order_by(*order_of(columns, each, kinds, connection))
                list(look(self._session, mapper, query, query.with_for_update(key_share=not gone)))

    def locked(
        self, mapper: Mapper[Any], query: Any, parameters: Any = None, *, gone: bool = False, of: Any = None
    ) -> list[Identity]:
        """What a query over a class finds, its rows locked; `gone` where they are about to be deleted.

        `of` is a column of the table whose rows are locked alone.
        """
        if is_united(mapper):
            # No database locks rows of a UNION: those of the class's own table are locked, and then looked at.
            table, size = cast("Table", mapper.local_table), len(mapper.primary_key)
            these = by_key(Identity(row[:size]) for row in self.identities(query, parameters, written=True))
            self._take(mapper, row_key(table), kinds_of(table), these, gone=gone)
            return self.identities(query, parameters, written=True)
        if self.locks:
            query = query.order_by(*keys(mapper))
        locking = locked(query, mapper, gone=gone, of=of)
        return [
            Identity(row)
            for each in parameter_sets(parameters)
            for row in look(self._session, mapper, query, locking, each)
        ]
