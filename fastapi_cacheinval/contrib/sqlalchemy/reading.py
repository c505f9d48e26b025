"""Reading, in the transaction at hand, what rows are: their tags before a change, and after it.

A session of its own reads, on the connection of the one that is watched: what is in the database counts, not what some
object in memory remembers. No listener of the app on sessions hears of it. Rows that are about to change are locked
where the database can do that, so that nobody moves them in between.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, event, select
from sqlalchemy.orm import Mapper, ORMExecuteState, Session

from fastapi_cacheinval.contrib.sqlalchemy.following import Follower
from fastapi_cacheinval.contrib.sqlalchemy.keys import Identity, key_of, keys
from fastapi_cacheinval.contrib.sqlalchemy.ordering import by_key, parts
from fastapi_cacheinval.contrib.sqlalchemy.rules import RuleBook, Rules
from fastapi_cacheinval.contrib.sqlalchemy.schema import of_class, spellings
from fastapi_cacheinval.contrib.sqlalchemy.sqlalchemy_private import QuietSession

__all__ = ["Reader", "reading"]


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


class Reader(Follower):
    """What rows of the watched transaction are tagged with, by their keys.

    `others` are rows that it has not locked, and of which only the committed rows tell the tags.
    """

    def __init__(
        self, session: Session, book: RuleBook, *, twins: bool = True, ahead: bool = False, ended: bool = False
    ) -> None:
        super().__init__(session, book, twins=twins, ahead=ahead, ended=ended)
        self.others: set[tuple[Mapper[Any], Identity]] = set()

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
            found: set[Identity] = set()
            whole = lock and (of is None or self._may_be_old)
            if self._tells(mapper, part, locked=whole or mine, own=lock or own):
                for each in self._book.family(mapper):
                    rules, known = self._book.of(each), each is mapper
                    yield from self._tags(each, rules, part, found, known=known, lock=lock, own=mine, gone=gone, of=of)
            if not ((lock and of is None) or (own and in_one)) and self._is_outdated(mapper, list(found)):
                self.lost.setdefault(mapper, False)
            if (written or (there and not self.are_plain(mapper, part))) and self._are_lost(mapper, part, found):
                self.lost[mapper] = True
            for linked in (False, True):
                beside: dict[Mapper[Any], list[Identity]] = {}
                for other, identity in self.beside(mapper, part, written=lock or mine, linked=linked):
                    beside.setdefault(other, []).append(identity)
                    if met is not None:
                        met.add((other, identity))
                for other, those in beside.items():
                    yield from self._tags_beside(other, those, own=(lock or mine) and not linked)

    def _tags_beside(self, other: Mapper[Any], those: list[Identity], *, own: bool) -> Iterator[str]:
        """The tags of rows of another class; they are locked if the transaction writes them, as its `own`."""
        for these in parts(those):
            if not self._tells(other, these, locked=own):
                continue
            met_there: set[Identity] = set()
            for each in self._book.family(other):
                rules, known = self._book.own(each), each is other
                yield from self._tags(each, rules, these, met_there, known=known, lock=False, own=own)
            is_lost = not self.are_plain(other, these) and self._are_lost(other, these, met_there)
            if is_lost or self._is_outdated(other, list(met_there)):
                self.lost.setdefault(other, False)

    def _tells(self, mapper: Mapper[Any], part: list[Identity], *, locked: bool = False, own: bool = False) -> bool:
        """Whether a query may tell the tags of these rows now, which are its `own` if the transaction writes them.

        What is not locked is read once more when the transaction is over, which its own view does not outlive.
        """
        if locked or self._is_alone or not self.are_looked(mapper, part):
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
