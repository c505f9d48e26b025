"""Reading, in the transaction at hand, what rows are: their tags before a change, and after it.

A session of its own reads, on the connection of the one that is watched: what is in the database counts, not what some
object in memory remembers. No listener of the app on sessions hears of it. Rows that are about to change are locked
where the database can do that, so that nobody moves them in between.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from sqlalchemy import Connection, Table, event, select
from sqlalchemy.orm import Mapper, ORMExecuteState, Session

from fastapi_cacheinval.contrib.sqlalchemy.keys import (
    Identity,
    among,
    is_plain,
    key_columns,
    key_of,
    keys,
    kinds_of,
    row_key,
)
from fastapi_cacheinval.contrib.sqlalchemy.ordering import by_key, followed, parts
from fastapi_cacheinval.contrib.sqlalchemy.rules import RuleBook, Rules
from fastapi_cacheinval.contrib.sqlalchemy.schema import Link, Side, lineage, of_class, shown_key, spellings
from fastapi_cacheinval.contrib.sqlalchemy.sqlalchemy_private import QuietSession
from fastapi_cacheinval.contrib.sqlalchemy.taking import Locker

__all__ = ["Reader", "reading"]

# A text is equal to itself alone; other databases may take no account of case.
_BY_LETTER = frozenset({"postgresql", "sqlite"})


@contextmanager
def reading(
    connection: Connection,
    book: RuleBook,
    options: Mapping[str, Any] | None = None,
    *,
    ahead: bool = False,
    ended: bool = False,
) -> Generator[Reader]:
    """Read on a connection whose transaction is somebody else's, all of it with these execution options.

    `ahead` where all of it is read once more before or after the write, and no row may be locked yet. `ended` where the
    transaction is over, or about to be.
    """
    with QuietSession(connection) as session:
        if options:
            given: Mapping[str, Any] = options

            def with_options(state: ORMExecuteState) -> None:
                state.update_execution_options(**given)

            event.listen(session, "do_orm_execute", with_options)
        # A statement purges what stands for any row of another class on its table: its rows are not looked up as well.
        yield Reader(session, book, twins=options is None, ahead=ahead, ended=ended)


class Reader(Locker):
    """What rows of the watched transaction are tagged with, by their keys.

    `lost` are the classes with rows that must be there, and that their keys do not find again, and whether
    what those rows are in other classes is not known either. `beside` the rows that are written there are `others`,
    which are not locked, and of which only the committed rows tell the tags.
    """

    def __init__(
        self, session: Session, book: RuleBook, *, twins: bool = True, ahead: bool = False, ended: bool = False
    ) -> None:
        super().__init__(session, ahead=ahead, ended=ended)
        self._twins = twins
        self._book = book
        self._by_letter = session.connection().dialect.name in _BY_LETTER
        self.lost: dict[Mapper[Any], bool] = {}
        self.others: set[tuple[Mapper[Any], Identity]] = set()

    def are_plain(self, of: Mapper[Any] | Table, identities: Iterable[Identity]) -> bool:
        """Whether keys, which an app may have given, surely stand in the rows as they stand here."""
        kinds = kinds_of(of)
        return all(
            is_plain(kind, value) and (self._by_letter or not isinstance(value, str))
            for each in identities
            for kind, value in zip(kinds, each, strict=True)
        )

    def tags(
        self,
        mapper: Mapper[Any],
        identities: Iterable[Identity],
        *,
        lock: bool,
        gone: bool = False,
        met: set[tuple[Mapper[Any], Identity]] | None = None,
        there: bool = False,
        written: bool = False,
        own: bool | None = None,
        of: Any = None,
    ) -> Iterator[str]:
        """The tags of these rows as they stand; nothing for rows that are not there.

        The rows `beside` them, whose tags are among these, are added to `met`. A class is `lost` where fewer rows are
        found by their keys than are looked for: `there` says that the database has just named them, `written` that
        they have just been written, and `gone` that they will be deleted, for which a lock has to be stronger.
        `own` are rows that the transaction writes, before or after this, if they are there. Only rows of the table with
        the column `of` are locked, if it is given.
        """
        own, in_one = written if own is None else own, len(mapper.tables) == 1
        mine = own and (in_one or self._is_ahead)
        for part in parts(by_key(identities) if lock or own else identities):
            beside: dict[Mapper[Any], list[Identity]] = {}
            found: set[Identity] = set()
            if self._tells(mapper, part, locked=lock or mine, own=lock or own):
                for each in self._book.family(mapper):
                    rules, known = self._book.of(each), each is mapper
                    yield from self._tags(each, rules, part, found, known=known, lock=lock, own=mine, gone=gone, of=of)
            if not ((lock and of is None) or (own and in_one)) and self._is_outdated(mapper, list(found)):
                self.lost.setdefault(mapper, False)
            if (written or (there and not self.are_plain(mapper, part))) and self._are_lost(mapper, part, found):
                self.lost[mapper] = True
            for other, identity in self.beside(mapper, part, written=lock or mine):
                beside.setdefault(other, []).append(identity)
                if met is not None:
                    met.add((other, identity))
            for other, those in beside.items():
                for these in parts(those):
                    met_there: set[Identity] = set()
                    if not self._tells(other, these):
                        continue
                    for each in self._book.family(other):
                        # Nothing is written there, so that a lock would be one that the app does not take.
                        alone = self._book.own(each)
                        yield from self._tags(each, alone, these, met_there, known=each is other, lock=False)
                    is_lost = not self.are_plain(other, these) and self._are_lost(other, these, met_there)
                    if is_lost or self._is_outdated(other, list(met_there)):
                        self.lost.setdefault(other, False)

    def _tells(
        self, mapper: Mapper[Any], part: list[Identity], *, locked: bool = False, own: bool = False
    ) -> bool:
        """Whether a query may tell the tags of these rows now, which are its `own` if the transaction writes them.

        What is not locked is read once more when the transaction is over, which its own view does not outlive.
        """
        if locked or not self._may_be_old or not self.are_looked(mapper, part):
            return True
        self.others.update((mapper, each) for each in part)
        if own or self._reads:
            return True
        if any(self._book.of(each).functions for each in self._book.family(mapper)):
            # What they told before the write, no row tells after it.
            self.lost.setdefault(mapper, False)
        return False

    def are_looked(self, mapper: Mapper[Any], identities: list[Identity]) -> bool:
        """Whether the tags of these rows are looked up in them, and not known by their keys."""
        plain = self.are_plain(mapper, identities)
        for each in self._book.family(mapper):
            rules = self._book.of(each)
            known = each is mapper and plain and rules.keys <= set(key_of(mapper))
            if rules.functions or (not known and (rules.templates or rules.wide)):
                return True
        return False

    def _are_lost(self, mapper: Mapper[Any], part: list[Identity], found: set[Identity]) -> bool:
        """Whether some of these rows are not there, if what their tags are was looked for; `found` were met then."""
        if len(found) >= len(part):
            return False
        rules = self._book.of(mapper)
        in_keys = not rules.looked and rules.keys <= set(key_of(mapper)) and self.are_plain(mapper, part)
        if in_keys and len(self._book.family(mapper)) == 1:
            return False
        query = self.in_order(mapper, select(*keys(mapper)), part)
        return len(found.union(self.identities(query))) < len(part)

    def _tags(
        self,
        mapper: Mapper[Any],
        rules: Rules,
        part: list[Identity],
        found: set[Identity],
        *,
        known: bool,
        lock: bool,
        own: bool = False,
        gone: bool = False,
        of: Any = None,
    ) -> Iterator[str]:
        names = key_of(mapper)
        if known and rules.keys <= set(names) and self.are_plain(mapper, part):
            for identity in part:
                yield from rules.rendered(dict(zip(names, identity, strict=True)))
        elif rules.templates or (rules.wide and not rules.functions):
            wanted = list(dict.fromkeys((*names, *sorted(rules.keys))))
            query = select(*(getattr(mapper.class_, key) for key in wanted))
            if lock:
                rows: Iterable[Identity] = self.in_turn(mapper, query, part, gone=gone, of=of)
            else:
                rows = self.identities(self.in_order(mapper, query, part), written=own)
            for row in rows:
                for values in spellings(mapper, dict(zip(wanted, row, strict=True)), self._session.connection()):
                    yield from rules.rendered(values)
                found.add(Identity(row[: len(names)]))
        if rules.functions:
            if lock:
                self.present(mapper, part, gone=gone, of=of)
            # Read anew: what this session has seen before may have changed since.
            query = select(mapper.class_).where(of_class(mapper)).options(*self.unlocked(mapper))
            query = self.now(self.in_order(mapper, query, part), written=lock or own)
            query = query.execution_options(populate_existing=True)
            for target in self._session.scalars(query).unique():
                yield from rules.told(target)
                found.add(Identity(mapper.primary_key_from_instance(target)))

    def neighbours(self, mapper: Mapper[Any], identities: Iterable[Identity]) -> Iterator[tuple[Mapper[Any], Identity]]:
        """The rows that association rows relate to these, of classes that have tags."""
        family = lineage(mapper)
        for link in self._book.links:
            if link.mapper in family and self._book.tagged(link.other):
                if self.untold(link):
                    self.lost.setdefault(link.other, False)
                    continue
                told = self.told(link)
                for part in parts(identities):
                    for found in self.identities(link.others(part, self._going, told=told), written=told):
                        yield link.other, found

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
        """What goes along with rows that the database has named is found by their keys, if these find them."""
        if not self.are_plain(kind, these):
            own = row_key(kind) if isinstance(kind, Table) else keys(kind)
            queries = [select(*own).where(among(kind, part)).order_by(*own) for part in parts(these)]
            found = [one for query in queries for one in self.identities(query, written=True)]
            if len(set(found)) < len(these):
                self.lost.update(dict.fromkeys(self._book.along(kind), True))

    def _after(self, of: Mapper[Any] | Table, these: list[Identity]) -> Iterator[tuple[Any, bool, list[Identity]]]:
        """The rows that go or change next: association rows of these, then rows whose foreign keys point to these."""
        for link in self._book.carried(of) if isinstance(of, Mapper) else ():
            queries = [link.rows(part, None, self._going) for part in parts(these)]
            yield link.secondary, True, [one for query in queries for one in self.identities(query, written=True)]
        for each, dependent in followed(of, self._book.dependents, self._session.connection()):
            queries = [dependent.rows(each, part, self._going) for part in parts(these)]
            found = [one for query in queries for one in self.identities(query, written=True)]
            yield dependent.kind, dependent.goes, found

    def links(
        self, link: Link, these: Iterable[Identity], others: list[Identity], *, written: bool = False
    ) -> list[Identity]:
        """The keys of the association rows of these, that relate them to `others`."""
        queries = [link.rows(part, each, self.now) for part in parts(these) for each in parts(others)]
        return [one for query in queries for one in self.identities(query, written=written)]

    def mapped(self, table: Any, these: list[Identity]) -> Iterator[tuple[Mapper[Any], Identity]]:
        """The rows of classes with tags that are these rows of a table."""
        for side in self._book.on(table):
            for part in parts(these):
                yield from ((side.other, one) for one in self._on(side, part, written=True))

    def _related(self, table: Any, these: list[Identity]) -> Iterator[tuple[Mapper[Any], Identity, bool | None]]:
        """The rows of classes that are these rows of a table, and those on both sides of them."""
        yield from ((other, one, True) for other, one in self.mapped(table, these))
        for link in self._book.links:
            if link.secondary is table and self._book.tagged(link.other):
                if self.untold(link):
                    self.lost.setdefault(link.other, False)
                    continue
                told = self.told(link)
                for part in parts(these):
                    query = link.of_rows(among(cast("Table", table), part), told=told)
                    yield from ((link.other, one, None) for one in self.identities(query, written=told))

    def beside(
        self, mapper: Mapper[Any], identities: Iterable[Identity], *, written: bool = False
    ) -> Iterator[tuple[Mapper[Any], Identity]]:
        """The rows of other classes that change with these: the same ones in another class, or those they link."""
        sides = dict.fromkeys((each, side) for each in self._book.family(mapper) for side in self._book.of(each).sides)
        met: set[Any] = set()
        for each, side in sides:
            if side in met or not (self._twins or side.link is not None):
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
        if side.link is not None and self.untold(side.link):
            self.lost.setdefault(side.other, False)
            return []
        query = side.rows(these, told=side.link is not None and self.told(side.link))
        if query is None:
            self.lost.setdefault(side.other, False)
        return [] if query is None else self.identities(query, written=written)
