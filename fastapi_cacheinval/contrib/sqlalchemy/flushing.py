"""What a flush writes: each row's tags before it is written, and after."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast
from weakref import WeakKeyDictionary

from sqlalchemy import ClauseElement, Connection, Delete, Table
from sqlalchemy.orm import Mapper, Session, object_session

from fastapi_cacheinval.contrib.sqlalchemy.autocommit import stands, will_stand
from fastapi_cacheinval.contrib.sqlalchemy.keys import Identity
from fastapi_cacheinval.contrib.sqlalchemy.ledger import Ledger
from fastapi_cacheinval.contrib.sqlalchemy.looking import Looks, Places
from fastapi_cacheinval.contrib.sqlalchemy.relating import Related, related
from fastapi_cacheinval.contrib.sqlalchemy.rules import RuleBook
from fastapi_cacheinval.contrib.sqlalchemy.schema import removes_rows, whole_of
from fastapi_cacheinval.contrib.sqlalchemy.sqlalchemy_private import when_planned
from fastapi_cacheinval.contrib.sqlalchemy.statements import extra_tables, writes
from fastapi_cacheinval.contrib.sqlalchemy.states import (
    changes_class,
    connection_of,
    identity_of,
    is_changed,
    is_plain_in,
    state_of,
)

__all__ = ["Flushes"]

Targets: TypeAlias = dict[Mapper[Any], list[Any]]


@dataclass(slots=True)
class _Flush:
    """One flush: the rows whose tags have been read, those to be read again after it and where, the objects written.

    `rows` are those of the objects written that their tags are not known without. `connections` are those that are
    written on, and whether what is written stands at once.
    """

    read: set[tuple[Connection, Mapper[Any], Identity]] = field(
        default_factory=set[tuple[Connection, Mapper[Any], Identity]]
    )
    again: dict[Connection, Places] = field(default_factory=dict[Connection, Places])
    written: list[tuple[Connection, Any]] = field(default_factory=list[tuple[Connection, Any]])
    rows: dict[Connection, Places] = field(default_factory=dict[Connection, Places])
    related: list[Related] = field(default_factory=list[Related])
    connections: dict[Connection, bool] = field(default_factory=dict[Connection, bool])

    def later(self, connection: Connection) -> Places:
        """The rows to be read again on a connection."""
        return self.again.setdefault(connection, set())

    def about_to_write(self, connection: Connection) -> None:
        """Note, before a write, whether it will stand at once: when it has failed, the transaction may be gone."""
        if connection not in self.connections:
            self.connections[connection] = will_stand(connection)


class Flushes:
    """Listens to flushes of the sessions that are watched."""

    def __init__(self, book: RuleBook, ledger: Ledger, looks: Looks) -> None:
        self._book = book
        self._ledger = ledger
        self._looks = looks
        self._running: WeakKeyDictionary[Session, _Flush] = WeakKeyDictionary()
        self._finished: WeakKeyDictionary[Session, dict[Connection, bool]] = WeakKeyDictionary()

    # -- before it ------------------------------------------------------------------------------

    def before_flush(self, session: Session, context: Any, _: object) -> None:
        """Wait for the flush's plan."""
        flush = self._running[session] = _Flush()
        when_planned(context, lambda gone, kept: self._planned(session, flush, gone, kept))

    def _planned(self, session: Session, flush: _Flush, gone: list[Any], kept: list[Any]) -> None:
        """Read what is known to change, many rows at a time."""
        there = [target for target in kept if state_of(target).key is not None]
        written = [target for target in there if is_changed(session, target)]
        self._read(session, flush, written, gone=False)
        self._read(session, flush, gone, gone=True)
        known = {id(target) for target in written}
        others = [target for target in there if id(target) not in known]
        self._read_beside(session, flush, [one for one in others if self._may_be_written(session, one)])
        self._relate(session, flush, kept)

    def _may_be_written(self, session: Session, target: Any) -> bool:
        """Whether a row changes by a collection, or by an UPDATE of which no event tells."""
        return is_changed(session, target, collections=True) or state_of(target).mapper in self._book.updated_later

    def _relate(self, session: Session, flush: _Flush, kept: Iterable[Any]) -> None:
        """What association rows are written for: both sides of them, and what is mapped to them or goes with them."""
        both_sides: list[Any] = []
        for change in related(self._book.links, kept):
            both_sides += (*change.targets, *change.added, *change.deleted)
            if self._book.carries(change.link.secondary):
                flush.related.append(change)
                connection = connection_of(session, change.link.other)
                with self._looks.reading(session, connection, given=self._asked(change)) as reader:
                    rows, table = change.ending(reader), cast("Table", change.link.secondary)
                    self._looks.along(session, reader, table, rows, flush.later(connection))
        # New ones are written, and looked at then.
        self._read_beside(session, flush, both_sides)

    def _asked(self, change: Related) -> list[tuple[Mapper[Any], list[Identity]]]:
        """The keys that association rows are looked for by, and the classes that may change with these."""
        table: Any = change.link.secondary
        return [*change.given(), *((mapper, []) for mapper in self._book.affected([table], removes=True))]

    def _read_beside(self, session: Session, flush: _Flush, targets: Iterable[Any]) -> None:
        """Read the tags of rows that may not be written themselves, now and after the flush; nobody waits for them."""
        for connection, mapper, identities in self._read(session, flush, targets, gone=False, lock=False):
            flush.later(connection).update((mapper, each) for each in identities)

    def _read(
        self, session: Session, flush: _Flush, targets: Iterable[Any], *, gone: bool, lock: bool = True
    ) -> list[tuple[Connection, Mapper[Any], list[Identity]]]:
        """Read the tags of objects that have rows, where these are; returns the rows."""
        by_class: Targets = {}
        for target in targets:
            by_class.setdefault(state_of(target).mapper, []).append(target)
        places: dict[tuple[Connection, Mapper[Any]], list[Identity]] = {}
        for mapper, those in by_class.items():
            if not (self._book.concerns(mapper) if gone else self._book.tagged(mapper)):
                continue
            for target in those if session.connection_callable is not None else those[:1]:
                where = (connection_of(session, mapper, target), mapper)
                found = [identity_of(state_of(each)) for each in ([target] if session.connection_callable else those)]
                places.setdefault(where, []).extend(each for each in found if each is not None)
        for (connection, mapper), identities in places.items():
            self._read_of(session, connection, flush, mapper, identities, gone=gone, lock=lock)
        return [(*where, identities) for where, identities in places.items()]

    def _read_of(
        self,
        session: Session,
        connection: Connection,
        flush: _Flush,
        mapper: Mapper[Any],
        identities: list[Identity],
        *,
        gone: bool,
        lock: bool = True,
    ) -> None:
        fresh = [each for each in identities if (connection, mapper, each) not in flush.read]
        if lock:
            # What is not locked is read once more if the flush turns out to write it.
            flush.read.update((connection, mapper, each) for each in fresh)
        if not fresh or not (self._book.concerns(mapper) if gone else self._book.tagged(mapper)):
            return
        with self._looks.reading(session, connection, given=[(mapper, fresh)], gone=gone) as reader:
            met = None if gone else flush.later(connection)
            self._ledger.add(session, list(reader.tags(mapper, fresh, lock=lock, met=met)))
            if gone:
                if any(self._book.tagged(each) for each in self._book.along(mapper)):
                    # Nobody may add to what goes along with them.
                    reader.present(mapper, fresh, gone=True)
                self._looks.along(session, reader, mapper, fresh, flush.later(connection))

    # -- while it runs --------------------------------------------------------------------------

    def before_insert(self, mapper: Mapper[Any], _: Connection, target: Any) -> None:
        """A row that is new: what it writes beside itself."""
        session = object_session(target)
        if session is not None and session in self._running:
            self.besides(session, mapper, state_of(target).dict.values())

    def besides(self, session: Session, mapper: Mapper[Any], values: Iterable[Any]) -> None:
        """What goes by a row: what its table has SQLite replace, and writes in the expressions of its attributes.

        Raises `UnknownRows` before anything is written, where there are no tags for any row of these.
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

    def before_write(self, mapper: Mapper[Any], connection: Connection, target: Any) -> None:
        """A row that only the flush itself knows of: a child whose parent has changed."""
        session = object_session(target)
        flush = None if session is None else self._running.get(session)
        if session is None or flush is None:
            # Events of a class come from all sessions, watched or not.
            return
        if self._book.tagged(whole_of(mapper)):
            # An association row may be all that is written for it.
            flush.about_to_write(connection)
        # It is called for what was only touched, too.
        if is_changed(session, target):
            state = state_of(target)
            self.besides(session, mapper, state.dict.values())
            identity = identity_of(state)
            if identity is not None:
                self._read_of(session, connection, flush, state.mapper, [identity], gone=False)

    def before_delete(self, mapper: Mapper[Any], connection: Connection, target: Any) -> None:
        """A row that goes: what that changes has been read."""
        session = object_session(target)
        flush = None if session is None else self._running.get(session)
        if flush is not None and self._book.concerns(mapper):
            flush.about_to_write(connection)

    def after_write(self, mapper: Mapper[Any], connection: Connection, target: Any) -> None:
        """A row is inserted or updated; its tags are known when the flush is over."""
        session = object_session(target)
        flush = None if session is None else self._running.get(session)
        if flush is None:
            return
        state = state_of(target)
        identity = identity_of(state)
        if self._book.tagged(whole_of(state.mapper)) and connection not in flush.connections:
            flush.connections[connection] = stands(connection)
        if identity is None or (connection, state.mapper, identity) in flush.read:
            flush.written.append((connection, target))

    # -- after it -------------------------------------------------------------------------------

    def after_flush(self, session: Session, *_: object) -> None:
        """Tag what was written as it now stands."""
        flush = self._running.pop(session, None)
        if flush is None:
            return
        for connection, target in flush.written:
            state = state_of(target)
            rules, moved = self._book.of(state.mapper), changes_class(state)
            if not rules and not moved:
                continue
            if moved or rules.looked or not all(is_plain_in(state, key) for key in rules.keys):
                identity = Identity(state.mapper.primary_key_from_instance(target))
                place = (whole_of(state.mapper) if moved else state.mapper, identity)
                flush.rows.setdefault(connection, set()).add(place)
            else:
                self._ledger.add(session, rules.rendered(state.dict))
        for change in flush.related:
            connection = connection_of(session, change.link.other)
            with self._looks.reading(session, connection, given=self._asked(change)) as reader:
                flush.later(connection).update(reader.mapped(change.link.secondary, change.made(reader)))
        for connection, places in flush.rows.items():
            self._looks.read_again(session, places, connection, written=True)
        for connection, places in flush.again.items():
            self._looks.read_again(session, places - flush.rows.get(connection, set()), connection)
        self._finished.setdefault(session, {}).update(flush.connections)

    def finished(self, session: Session) -> list[Connection]:
        """The connections on which flushes since the last call have written rows with tags; once each flush is over."""
        return list(self._finished.pop(session, {}))

    @contextmanager
    def writing(self, session: Session, connections: Iterable[Connection]) -> Generator[None]:
        """Around rows with tags that are written in autocommit without a flush: where that fails, as in a flush."""
        self._finished.setdefault(session, {}).update(dict.fromkeys(connections, True))
        try:
            yield
        finally:
            self._finished.pop(session, None)

    def failed(self, session: Session) -> bool:
        """Whether a flush has failed that may have written rows with tags which stand: which ones is not known."""
        flush = self._running.pop(session, None)
        written = self._finished.pop(session, {})
        return any(written.values()) or (flush is not None and any(flush.connections.values()))
