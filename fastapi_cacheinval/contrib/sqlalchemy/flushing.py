"""What a flush writes: each row's tags before it is written, and after."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection
from sqlalchemy.orm import Mapper, Session, object_session

from fastapi_cacheinval.contrib.sqlalchemy.autocommit import stands
from fastapi_cacheinval.contrib.sqlalchemy.keys import Identity, key_of
from fastapi_cacheinval.contrib.sqlalchemy.ledger import Ledger
from fastapi_cacheinval.contrib.sqlalchemy.looking import Looks
from fastapi_cacheinval.contrib.sqlalchemy.planning import Flush, Plans
from fastapi_cacheinval.contrib.sqlalchemy.rules import RuleBook, Rules
from fastapi_cacheinval.contrib.sqlalchemy.schema import whole_of
from fastapi_cacheinval.contrib.sqlalchemy.snapshots import heed_views
from fastapi_cacheinval.contrib.sqlalchemy.sqlalchemy_private import Batch, when_planned
from fastapi_cacheinval.contrib.sqlalchemy.states import (
    changes_class,
    connection_of,
    identity_of,
    is_plain_in,
    state_of,
)

__all__ = ["Flushes"]


class Flushes:
    """Listens to flushes of the sessions that are watched."""

    def __init__(self, book: RuleBook, ledger: Ledger, looks: Looks) -> None:
        self._book = book
        self._ledger = ledger
        self._looks = looks
        self._plans = Plans(book, ledger, looks)
        self.besides = self._plans.besides
        self._running: WeakKeyDictionary[Session, Flush] = WeakKeyDictionary()
        self._finished: WeakKeyDictionary[Session, dict[Connection, bool]] = WeakKeyDictionary()

    def began(self, _: Session, __: object, connection: Connection) -> None:
        """A session has begun to use a connection: whether the app reads before it writes is heard."""
        heed_views(connection)

    # -- before it ------------------------------------------------------------------------------

    def before_flush(self, session: Session, context: Any, _: object) -> None:
        """Wait for the flush's plan."""
        flush = self._running[session] = Flush()

        def planned(gone: list[Any], kept: list[Any], batches: list[Batch]) -> None:
            self._plans.planned(session, flush, gone, kept, batches)

        when_planned(context, planned)

    # -- while it runs --------------------------------------------------------------------------

    def before_insert(self, mapper: Mapper[Any], connection: Connection, target: Any) -> None:
        """A row that is new, or takes the place of one."""
        session = object_session(target)
        flush = None if session is None else self._running.get(session)
        if session is None or flush is None:
            return
        state = state_of(target)
        flush.unsure.listen(connection)
        before = session.identity_map.get(mapper.identity_key_from_instance(target))
        if before is not None:
            self._plans.replace(flush, state, state_of(before))
        self._plans.met(session, flush, state)

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
        flush.unsure.listen(connection)
        self._plans.met(session, flush, state_of(target))

    def before_delete(self, mapper: Mapper[Any], connection: Connection, target: Any) -> None:
        """A row that goes: what that changes has been read."""
        session = object_session(target)
        flush = None if session is None else self._running.get(session)
        if session is None or flush is None:
            return
        if self._book.concerns(mapper):
            flush.about_to_write(connection)
        self._plans.met(session, flush, state_of(target))

    def after_write(self, mapper: Mapper[Any], connection: Connection, target: Any) -> None:
        """A row is inserted or updated; its tags are known when the flush is over."""
        session = object_session(target)
        flush = None if session is None else self._running.get(session)
        if flush is None:
            return
        flush.unsure.sent()
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
        flush.unsure.stop()
        if any(batch.gone or each.key is not None for each, batch in flush.batches.items()):
            # Its event has not come, and it may be written all the same.
            self._ledger.add_everything(session)
        for connection, target in flush.written:
            state = state_of(target)
            rules, moved = self._book.of(state.mapper), changes_class(state)
            if not rules and not moved:
                continue
            if moved or rules.looked or not self._holds_row(state, rules):
                identity = Identity(state.mapper.primary_key_from_instance(target))
                place = (whole_of(state.mapper) if moved else state.mapper, identity)
                flush.rows.setdefault(connection, set()).add(place)
            else:
                self._ledger.add(session, rules.rendered(state.dict))
        for change in flush.related:
            connection = connection_of(session, change.link.other)
            with self._looks.reading(session, connection, given=self._plans.asked(change)) as reader:
                flush.later(connection).update(reader.mapped(change.link.secondary, change.made(reader)))
        for connection, places in flush.rows.items():
            self._looks.read_again(session, places, connection, written=True)
        for connection, places in flush.again.items():
            self._looks.read_again(session, places - flush.rows.get(connection, set()), connection)
        self._finished.setdefault(session, {}).update(flush.connections)

    @staticmethod
    def _holds_row(state: Any, rules: Rules) -> bool:
        """Whether the values in an object make the tags of its row: others may have changed what it has not written.

        Of a template over such values alone the tag is known from before the write.
        """
        is_old = state.key is not None and rules.mix(state.unmodified.difference(key_of(state.mapper)))
        return not is_old and all(is_plain_in(state, key) for key in rules.keys)

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
        if flush is not None:
            flush.unsure.stop()
        return any(written.values()) or (flush is not None and any(flush.connections.values()))
