"""What is read before the rows of a flush are written.

The rows that it writes are locked batch by batch, when SQLAlchemy is about to write the batch: locked sooner, or in
another order, they would make rings of waiting sessions that the app alone has not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeAlias, cast

from sqlalchemy import ClauseElement, Connection, Delete, Table
from sqlalchemy.orm import Mapper, Session

from fastapi_cacheinval.contrib.sqlalchemy.autocommit import will_stand
from fastapi_cacheinval.contrib.sqlalchemy.keys import Identity
from fastapi_cacheinval.contrib.sqlalchemy.ledger import Ledger
from fastapi_cacheinval.contrib.sqlalchemy.locking import take_turn
from fastapi_cacheinval.contrib.sqlalchemy.looking import Looks, Places
from fastapi_cacheinval.contrib.sqlalchemy.relating import Related, related
from fastapi_cacheinval.contrib.sqlalchemy.rules import RuleBook
from fastapi_cacheinval.contrib.sqlalchemy.schema import removes_rows
from fastapi_cacheinval.contrib.sqlalchemy.sqlalchemy_private import Batch
from fastapi_cacheinval.contrib.sqlalchemy.statements import extra_tables, writes
from fastapi_cacheinval.contrib.sqlalchemy.states import connection_of, identity_of, is_changed, state_of
from fastapi_cacheinval.contrib.sqlalchemy.unsure import Held, Unsure

__all__ = ["Flush", "Plans"]

Found: TypeAlias = dict[Connection, dict[Mapper[Any], list[Identity]]]


@dataclass(slots=True)
class Flush:
    """One flush: the rows whose tags have been read, those to be read again after it and where, the objects written.

    `rows` are those of the objects written that their tags are not known without. `connections` are those that are
    written on, and whether what is written stands at once. `batches` are those of the states whose event has not come.
    `gone` and `kept` are the objects that it deletes, and that it may insert or update.
    """

    gone: list[Any] = field(default_factory=list[Any])
    kept: list[Any] = field(default_factory=list[Any])
    read: set[tuple[Connection, Mapper[Any], Identity]] = field(
        default_factory=set[tuple[Connection, Mapper[Any], Identity]]
    )
    again: dict[Connection, Places] = field(default_factory=dict[Connection, Places])
    written: list[tuple[Connection, Any]] = field(default_factory=list[tuple[Connection, Any]])
    rows: dict[Connection, Places] = field(default_factory=dict[Connection, Places])
    related: list[Related] = field(default_factory=list[Related])
    connections: dict[Connection, bool] = field(default_factory=dict[Connection, bool])

    batches: dict[Any, Batch] = field(default_factory=dict[Any, Batch])
    unsure: Unsure = field(default_factory=Unsure)

    def later(self, connection: Connection) -> Places:
        """The rows to be read again on a connection."""
        return self.again.setdefault(connection, set())

    def about_to_write(self, connection: Connection) -> None:
        """Note, before a write, whether it will stand at once: when it has failed, the transaction may be gone."""
        if connection not in self.connections:
            self.connections[connection] = will_stand(connection)


class Plans:
    """Reads the tags of the rows of flushes before these write them."""

    def __init__(self, book: RuleBook, ledger: Ledger, looks: Looks) -> None:
        self._book = book
        self._ledger = ledger
        self._looks = looks

    def planned(self, session: Session, flush: Flush, gone: list[Any], kept: list[Any], batches: list[Batch]) -> None:
        """Read what other writes of the flush may change before a row's turn comes, and lock nothing."""
        flush.gone, flush.kept = gone, kept
        flush.batches = {state: batch for batch in batches for state in batch.states}

        def look(*, last: bool) -> None:
            targets = flush.unsure.settled(session, last=last)
            if targets:
                self._look(session, flush, targets)

        flush.unsure.look = look
        there = [target for target in kept if state_of(target).key is not None]
        written = [target for target in there if is_changed(session, target)]
        self._read(session, flush, [one for one in written if self._is_looked(one)], gone=False, lock=False)
        self._read(session, flush, [one for one in gone if self._goes_along(one)], gone=True, lock=False)
        known = {id(target) for target in written}
        others = [target for target in there if id(target) not in known]
        self._read_beside(session, flush, [one for one in others if self._may_be_written(session, one)])
        if len(batches) > 1:
            # SQLAlchemy itself sets foreign keys later on, and listeners of the app set whatever they like.
            quiet = [one for one in others if self._is_looked(one) and not self._may_be_written(session, one)]
            self._read(session, flush, quiet, gone=False, lock=False, hold=True)
        self._relate(session, flush, kept)

    def met(self, session: Session, flush: Flush, state: Any) -> None:
        """The event of a state; after the last one of a batch its rows are written next: they are locked and read."""
        batch = flush.batches.pop(state, None)
        if batch is not None and batch.met(state):
            every = [target for each in batch.states if (target := each.obj()) is not None]
            if batch.gone:
                self._read(session, flush, every, gone=True)
            else:
                replaced = [target for each in batch.replaced if (target := each.obj()) is not None]
                flush.unsure.wait(replaced, every)

    def _look(self, session: Session, flush: Flush, targets: list[Any]) -> None:
        """Lock and read what a batch writes, right before its first statement: the app has no more say in it."""
        for target in targets:
            state = state_of(target)
            self.besides(session, state.mapper, state.dict.values())
        self._read(session, flush, targets, gone=False)

    def besides(self, session: Session, mapper: Mapper[Any], values: Iterable[Any]) -> None:
        """What goes by a row: what its table has SQLite replace, and writes in the expressions of its attributes.

        Raises `UnknownRows` before the row is written, where there are no tags for any row of these.
        """
        for table in mapper.tables:
            if removes_rows(table) and session.get_bind(mapper).dialect.name == "sqlite":
                replaced = self._book.affected([table], removes=True)
                self._ledger.add(session, self._book.any_row(replaced, "a row whose table replaces rows"))
        for value in values:
            if isinstance(value, ClauseElement) or hasattr(value, "__clause_element__"):
                for one in writes(value):
                    written = self._book.affected(extra_tables(one), removes=isinstance(one, Delete))
                    self._ledger.add(session, self._book.any_row(written, "a write inside the value of an attribute"))

    @staticmethod
    def replace(flush: Flush, new: Any, before: Any) -> None:
        """A new object with the key of one that was to be deleted: SQLAlchemy makes an UPDATE of both."""
        of_new, of_before = flush.batches.get(new), flush.batches.get(before)
        if of_new is not None and of_before is not None and of_before.gone:
            del flush.batches[before]
            of_before.met(before)
            of_before.states.remove(before)
            of_new.replaced.append(before)

    def _is_looked(self, target: Any) -> bool:
        return any(self._book.of(each).looked for each in self._book.family(state_of(target).mapper))

    def _goes_along(self, target: Any) -> bool:
        return self._is_looked(target) or self._reaches(state_of(target).mapper)

    def _reaches(self, mapper: Mapper[Any]) -> bool:
        return any(self._book.tagged(each) for each in self._book.along(mapper))

    def _may_be_written(self, session: Session, target: Any) -> bool:
        """Whether a row changes by a collection, or by an UPDATE of which no event tells."""
        return is_changed(session, target, collections=True) or state_of(target).mapper in self._book.updated_later

    def _relate(self, session: Session, flush: Flush, kept: Iterable[Any]) -> None:
        """What association rows are written for: both sides of them, and what is mapped to them or goes with them."""
        both_sides: list[Any] = []
        for change in related(self._book.links, kept):
            both_sides += (*change.targets, *change.added, *change.deleted)
            if self._book.carries(change.link.secondary):
                flush.related.append(change)
                connection = connection_of(session, change.link.other)
                if change.deleted:
                    # They are deleted before anything else is written, and are not looked at again.
                    take_turn(connection, [cast("Table", change.link.secondary)])
                with self._looks.reading(session, connection, given=self.asked(change)) as reader:
                    rows, table = change.ending(reader), cast("Table", change.link.secondary)
                    self._looks.along(session, reader, table, rows, flush.later(connection))
        # New ones are written, and looked at then.
        self._read_beside(session, flush, both_sides)

    def asked(self, change: Related) -> list[tuple[Mapper[Any], list[Identity]]]:
        """The keys that association rows are looked for by, and the classes that may change with these."""
        table: Any = change.link.secondary
        return [*change.given(), *((mapper, []) for mapper in self._book.affected([table], removes=True))]

    def _read_beside(self, session: Session, flush: Flush, targets: Iterable[Any]) -> None:
        """Read the tags of rows that may not be written themselves, now and after the flush; nobody waits for them."""
        for connection, found in self._read(session, flush, targets, gone=False, lock=False, own=False).items():
            flush.later(connection).update((mapper, each) for mapper, those in found.items() for each in those)

    def _read(
        self,
        session: Session,
        flush: Flush,
        targets: Iterable[Any],
        *,
        gone: bool,
        lock: bool = True,
        own: bool = True,
        hold: bool = False,
    ) -> Found:
        """Read the tags of objects that have rows, where these are; returns the rows.

        `own` where the flush writes them, and `hold` keeps the tags until one of the rows is written.
        """
        found: Found = {}
        connections: dict[Mapper[Any], Connection] = {}
        for target in targets:
            state = state_of(target)
            mapper, identity = state.mapper, identity_of(state)
            # What is about to be written is noted in any case: it may be of another class after that.
            if identity is None or not (lock or (self._book.concerns(mapper) if gone else self._book.tagged(mapper))):
                continue
            if session.connection_callable is not None:
                connection = connection_of(session, mapper, target)
            else:
                connection = connections.get(mapper) or connections.setdefault(mapper, connection_of(session, mapper))
            found.setdefault(connection, {}).setdefault(mapper, []).append(identity)
        for connection, places in found.items():
            self._read_of(session, connection, flush, places, gone=gone, lock=lock, own=own, hold=hold)
        return found

    def _take_turn(
        self,
        session: Session,
        flush: Flush,
        connection: Connection,
        mappers: list[Mapper[Any]],
        *,
        gone: bool,
        lock: bool,
    ) -> None:
        """Wait for other writers on SQLite before a look, if the flush is about to write there.

        What is not locked yet is looked at once more, but for association rows, which SQLAlchemy deletes before the
        rows that they link, and `post_update`, which no event tells of.
        """
        if lock or (connection.dialect.name == "sqlite" and self._writes_on(session, flush, connection)):
            early = any(
                (gone and self._book.carried(each)) or not self._book.updated_later.isdisjoint(self._book.family(each))
                for each in mappers
            )
            take_turn(connection, [table for each in mappers for table in each.tables], begin=lock or early)

    @staticmethod
    def _writes_on(session: Session, flush: Flush, connection: Connection) -> bool:
        """Whether a flush writes on a connection, unless a listener takes back what the app has changed."""
        new_or_changed = (
            target
            for target in flush.kept
            if state_of(target).key is None or is_changed(session, target, collections=True)
        )
        return any(
            connection_of(session, state_of(target).mapper, target) is connection
            for target in chain(flush.gone, new_or_changed)
        )

    def _read_of(
        self,
        session: Session,
        connection: Connection,
        flush: Flush,
        places: dict[Mapper[Any], list[Identity]],
        *,
        gone: bool = False,
        lock: bool = True,
        own: bool = True,
        hold: bool = False,
    ) -> None:
        """Read the tags of rows of one hierarchy, or of any where they are not locked."""
        fresh: dict[Mapper[Any], list[Identity]] = {}
        for mapper, identities in places.items():
            these = [each for each in identities if (connection, mapper, each) not in flush.read]
            if lock:
                # What is not locked is read once more if the flush turns out to write it.
                flush.read.update((connection, mapper, each) for each in these)
                for held in flush.unsure.release(connection, mapper, these):
                    self._ledger.add(session, held.tags)
                    flush.later(connection).update(held.beside)
            if these and (self._book.concerns(mapper) if gone else self._book.tagged(mapper)):
                fresh[mapper] = these
        asked = list(fresh.items())
        self._take_turn(session, flush, connection, list(fresh), gone=gone, lock=lock)
        for at, (mapper, these) in enumerate(asked):
            given = asked[at : at + 1] if at else asked
            with self._looks.reading(session, connection, given=given, gone=gone, ahead=not lock) as reader:
                taking = lock or (own and reader.locks)
                if taking and not at:
                    # All of them, as the flush writes them; where it writes them by class and key the looks do that.
                    looked = [one for one in asked if reader.are_looked(*one) or (gone and self._reaches(one[0]))]
                    reader.take(dict(looked), gone=gone)
                beside: Places = set() if hold else flush.later(connection)
                met = None if gone else beside
                tags = list(reader.tags(mapper, these, lock=lock, gone=gone, met=met, own=own))
                if hold:
                    flush.unsure.held.append(Held(connection, mapper, set(these), tags, beside))
                else:
                    self._ledger.add(session, tags)
                if gone:
                    if taking and self._reaches(mapper):
                        # Nobody may add to what goes along with them.
                        reader.present(mapper, these, gone=True)
                    self._looks.along(session, reader, mapper, these, flush.later(connection), lock=lock)
