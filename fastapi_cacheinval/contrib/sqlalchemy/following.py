"""From rows that are written to others: what is linked to them, what goes along with them, what they are besides.

What an `ON DELETE` rule takes along is found before the rows go; association rows tell what they relate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

from sqlalchemy import Table, select
from sqlalchemy.orm import Mapper, Session

from fastapi_cacheinval.contrib.sqlalchemy.keys import (
    Identity,
    among,
    is_plain,
    key_columns,
    keys,
    kinds_of,
    row_key,
)
from fastapi_cacheinval.contrib.sqlalchemy.ordering import followed, parts
from fastapi_cacheinval.contrib.sqlalchemy.rules import RuleBook
from fastapi_cacheinval.contrib.sqlalchemy.schema import Link, Side, lineage, shown_key
from fastapi_cacheinval.contrib.sqlalchemy.taking import Locker

__all__ = ["Follower"]

# A text is equal to itself alone; other databases may take no account of case.
_BY_LETTER = frozenset({"postgresql", "sqlite"})


class Follower(Locker):
    """The rows that change with rows of the watched transaction, by their keys.

    `lost` are the classes with rows that must be there, and that their keys do not find again, and whether
    what those rows are in other classes is not known either.
    """

    def __init__(self, session: Session, book: RuleBook, *, twins: bool, ahead: bool, ended: bool) -> None:
        super().__init__(session, ahead=ahead, ended=ended)
        self._twins = twins
        self._book = book
        self._by_letter = session.connection().dialect.name in _BY_LETTER
        self.lost: dict[Mapper[Any], bool] = {}

    def are_plain(self, of: Mapper[Any] | Table, identities: Iterable[Identity]) -> bool:
        """Whether keys, which an app may have given, surely stand in the rows as they stand here."""
        kinds = kinds_of(of)
        return all(
            is_plain(kind, value) and (self._by_letter or not isinstance(value, str))
            for each in identities
            for kind, value in zip(kinds, each, strict=True)
        )

    def neighbours(self, mapper: Mapper[Any], identities: Iterable[Identity]) -> Iterator[tuple[Mapper[Any], Identity]]:
        """The rows that association rows relate to these, of classes that have tags."""
        family = lineage(mapper)
        for link in self._book.links:
            if link.mapper in family and self._book.tagged(link.other) and (told := self.tells(link)) is not None:
                for part in parts(identities):
                    for found in self.identities(link.others(part, self._going, told=told), written=told):
                        yield link.other, found

    def tells(self, link: Link) -> bool | None:
        """Whether the association rows alone tell what a link relates: on MariaDB a look beyond locks the other side.

        None where nothing but such a lock would tell it. Then the rows of the other side are `lost`.
        """
        if not self._may_be_old:
            return False
        if link.tells:
            return True
        self.lost.setdefault(link.other, False)
        return None

    def _going(self, query: Any) -> Any:
        """A query inside of another, over rows that are about to be deleted."""
        return self.now(query, written=True)

    def fallen(
        self, kind: Mapper[Any] | Table, identities: Iterable[Identity]
    ) -> Iterator[tuple[Mapper[Any], Identity, bool | None]]:
        """The rows that change when these rows of a class, or of a table, are deleted.

        True for those that are deleted as well, False for those that the database changes, None for those it unlinks.
        """
        seen: set[tuple[Any, Identity, bool]] = set()  # One may be unlinked by one foreign key, and go by another.
        # PostgreSQL is through with the foreign keys of a row before it follows those of the next; InnoDB goes deeper.
        turn = 0 if self._session.connection().dialect.name == "postgresql" else -1
        ahead = [self._after(kind, list(identities))]
        if isinstance(kind, Table):
            yield from self._related(kind, list(identities))
        while ahead:
            step = next(ahead[turn], None)
            if step is None:
                del ahead[turn]
                continue
            other, goes, found = step
            fresh = [one for one in dict.fromkeys(found) if (other, one, goes) not in seen]
            seen.update((other, one, goes) for one in fresh)
            is_table = isinstance(other, Table)
            yield from self._related(other, fresh) if is_table else ((other, one, goes) for one in fresh)
            if goes and fresh:
                self._find_again(other, fresh)
                ahead.append(self._after(other, fresh))

    def _find_again(self, kind: Mapper[Any] | Table, these: list[Identity]) -> None:
        """Note a class as `lost` if the keys of its rows do not find them again: nothing tells what goes along then."""
        if not self.are_plain(kind, these):
            own = row_key(kind) if isinstance(kind, Table) else keys(kind)
            queries = (select(*own).where(among(kind, part)).order_by(*own) for part in parts(these))
            found = self.all_of(queries, written=True)
            if len(set(found)) < len(these):
                self.lost.update(dict.fromkeys(self._book.along(kind), True))

    def _after(self, of: Mapper[Any] | Table, these: list[Identity]) -> Iterator[tuple[Any, bool, list[Identity]]]:
        """The rows that go or change next: association rows of these, then rows whose foreign keys point to these."""
        for link in self._book.carried(of) if isinstance(of, Mapper) else ():
            queries = [link.rows(part, None, self._going) for part in parts(these)]
            yield link.secondary, True, self.all_of(queries, written=True)
        for each, dependent in followed(of, self._book.dependents, self._session.connection()):
            queries = [dependent.rows(each, part, self._going) for part in parts(these)]
            yield dependent.kind, dependent.goes, self.all_of(queries, written=True)

    def links(
        self, link: Link, these: Iterable[Identity], others: list[Identity], *, written: bool = False
    ) -> list[Identity]:
        """The keys of the association rows of these, that relate them to `others`."""
        queries = (link.rows(part, each, self.now) for part in parts(these) for each in parts(others))
        return self.all_of(queries, written=written)

    def mapped(self, table: Any, these: list[Identity]) -> Iterator[tuple[Mapper[Any], Identity]]:
        """The rows of classes with tags that are these rows of a table."""
        for side in self._book.on(table):
            for part in parts(these):
                yield from ((side.other, one) for one in self._on(side, part, written=True))

    def _related(self, table: Any, these: list[Identity]) -> Iterator[tuple[Mapper[Any], Identity, bool | None]]:
        """The rows of classes that are these rows of a table, and those on both sides of them."""
        yield from ((other, one, True) for other, one in self.mapped(table, these))
        for link in self._book.links:
            if link.secondary is table and self._book.tagged(link.other) and (told := self.tells(link)) is not None:
                for part in parts(these):
                    query = link.of_rows(among(cast("Table", table), part), told=told)
                    yield from ((link.other, one, None) for one in self.identities(query, written=told))

    def beside(
        self,
        mapper: Mapper[Any],
        identities: Iterable[Identity],
        *,
        written: bool = False,
        linked: bool | None = None,
    ) -> Iterator[tuple[Mapper[Any], Identity]]:
        """The rows of other classes that change with these: the same ones in another class, or those they link.

        `linked` asks for one of the two alone.
        """
        sides = dict.fromkeys((each, side) for each in self._book.family(mapper) for side in self._book.of(each).sides)
        met: set[Any] = set()
        for each, side in sides:
            links = side.link is not None
            if side in met or not (self._twins or links) or linked not in (None, links):
                continue
            met.add(side)
            for part in parts(identities):
                own = key_columns(each, side.table)
                wanted = row_key(side.table)
                if own is not None and set(own) == set(wanted):
                    these = [Identity(identity[own.index(column)] for column in wanted) for identity in part]
                else:
                    shown = shown_key(each, side.table)
                    if shown is None:
                        self.lost.setdefault(side.other, False)
                        continue
                    query = self.in_order(each, select(*shown).select_from(each.class_), part)
                    these = self.identities(query, written=written)
                yield from ((side.other, found) for found in self._on(side, these, written=written))

    def _on(self, side: Side, these: list[Identity], *, written: bool) -> list[Identity]:
        told = False if side.link is None else self.tells(side.link)
        query = None if told is None else side.rows(these, told=told)
        if query is None:
            self.lost.setdefault(side.other, False)
            return []
        return self.identities(query, written=written)
