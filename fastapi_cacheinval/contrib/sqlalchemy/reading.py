"""Reading, in the transaction at hand, what rows are: their tags before a change, and after it.

A session of its own reads, on the connection of the one that is watched: what is in the database counts, not what some
object in memory remembers. No listener of the app on sessions hears of it. Rows that are about to change are locked
where the database can do that, so that nobody moves them in between.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from sqlalchemy import Connection, event, inspect, select
from sqlalchemy.orm import Mapper, ORMExecuteState, Session

from fastapi_cacheinval.contrib.sqlalchemy.rules import RuleBook, Rules
from fastapi_cacheinval.contrib.sqlalchemy.schema import (
    Identity,
    among,
    dependents,
    is_plain,
    key_of,
    keys,
    lineage,
    links,
)
from fastapi_cacheinval.contrib.sqlalchemy.sqlalchemy_private import QuietSession, as_flushing

__all__ = ["Reader", "connection_of", "mapper_of", "reading"]

# Rows in one query.
_MOST = 400


def connection_of(session: Session, mapper: Mapper[Any], target: Any = None) -> Connection:
    """The connection that a flush writes a class's rows on, or that of one object where each has its own.

    Sessions that split readers from writers ask whether they are flushing.
    """
    if session.connection_callable is not None and target is not None:
        return session.connection_callable(mapper.base_mapper, target)
    with as_flushing(session):
        return session.connection(bind_arguments={"mapper": mapper.base_mapper})


def mapper_of(target: Any) -> Mapper[Any]:
    """The mapper of an object."""
    state: Any = inspect(target)
    mapper: Mapper[Any] = state.mapper
    return mapper


@contextmanager
def reading(connection: Connection, book: RuleBook, options: Mapping[str, Any] | None = None) -> Generator[Reader]:
    """Read on a connection whose transaction is somebody else's, all of it with these execution options."""
    with QuietSession(connection) as session:
        if options:
            given: Mapping[str, Any] = options

            def with_options(state: ORMExecuteState) -> None:
                state.update_execution_options(**given)

            event.listen(session, "do_orm_execute", with_options)
        yield Reader(session, book)


def _parts(identities: Iterable[Identity]) -> Iterator[list[Identity]]:
    every = list(dict.fromkeys(identities))
    for begin in range(0, len(every), _MOST):
        yield every[begin : begin + _MOST]


def _are_plain(mapper: Mapper[Any], identities: list[Identity]) -> bool:
    """Whether keys, which an app may have given, surely stand in the rows as they stand here."""
    kinds = [column.type for column in mapper.primary_key]
    return all(is_plain(kind, value) for each in identities for kind, value in zip(kinds, each, strict=True))


class Reader:
    """What rows of the watched transaction are tagged with, by their keys."""

    def __init__(self, session: Session, book: RuleBook) -> None:
        self._session = session
        self._book = book

    def identities(self, query: Any, parameters: Any = None) -> list[Identity]:
        """The keys that a query finds."""
        sets: list[Any] = list(cast("Any", parameters)) if isinstance(parameters, list | tuple) else [parameters]
        return [tuple(row) for each in sets for row in self._session.execute(query, each or {})]

    def present(self, mapper: Mapper[Any], identities: Iterable[Identity], *, gone: bool = False) -> list[Identity]:
        """Those of the rows that are there, locked; `gone` where they are about to be deleted."""
        found: list[Identity] = []
        for part in _parts(identities):
            query = select(*keys(mapper)).where(among(mapper, part)).with_for_update(key_share=not gone)
            found += self.identities(query)
        return found

    def tags(self, mapper: Mapper[Any], identities: Iterable[Identity], *, lock: bool) -> Iterator[str]:
        """The tags of these rows as they stand; nothing for rows that are not there."""
        for part in _parts(identities):
            for each in self._book.family(mapper):
                yield from self._tags(each, self._book.of(each), part, known=each is mapper, lock=lock)

    def _tags(
        self, mapper: Mapper[Any], rules: Rules, part: list[Identity], *, known: bool, lock: bool
    ) -> Iterator[str]:
        names, wanted = key_of(mapper), sorted(rules.keys)
        if known and rules.keys <= set(names) and _are_plain(mapper, part):
            for identity in part:
                yield from rules.rendered(dict(zip(names, identity, strict=True)))
        elif rules.templates:
            columns = [getattr(mapper.class_, key) for key in wanted] or keys(mapper)
            query = select(*columns).where(among(mapper, part))
            for row in self._session.execute(query.with_for_update(key_share=True) if lock else query):
                yield from rules.rendered(dict(zip(wanted, row, strict=False)))
        if rules.functions:
            if lock:
                self._session.execute(
                    select(*keys(mapper)).where(among(mapper, part)).with_for_update(key_share=True)
                ).all()
            # Read anew: what this session has seen before may have changed since.
            query = select(mapper.class_).where(among(mapper, part)).execution_options(populate_existing=True)
            for target in self._session.scalars(query).unique():
                yield from rules.told(target)

    def neighbours(self, mapper: Mapper[Any], identities: Iterable[Identity]) -> Iterator[tuple[Mapper[Any], Identity]]:
        """The rows that association rows relate to these, of classes that have tags."""
        family = lineage(mapper)
        for link in links(mapper.registry.mappers):
            if link.mapper in family and self._book.tagged(link.other):
                for part in _parts(identities):
                    for found in self.identities(link.others(part)):
                        yield link.other, found

    def fallen(
        self, mapper: Mapper[Any], identities: Iterable[Identity]
    ) -> Iterator[tuple[Mapper[Any], Identity, bool]]:
        """The rows that the database changes by itself when these are deleted; True for those that go too."""
        seen: set[tuple[Mapper[Any], Identity]] = set()
        ahead = [(mapper, list(identities))]
        while ahead:
            of, these = ahead.pop()
            for each in of.self_and_descendants:
                for other, column, named, goes in dependents(each):
                    found: list[Identity] = []
                    for part in _parts(these):
                        inner = select(named).where(among(each, part))
                        found += self.identities(select(*keys(other)).where(column.in_(inner)))
                    fresh = [one for one in found if (other, one) not in seen]
                    seen.update((other, one) for one in fresh)
                    for one in fresh:
                        yield other, one, goes
                    if goes and fresh:
                        ahead.append((other, fresh))
