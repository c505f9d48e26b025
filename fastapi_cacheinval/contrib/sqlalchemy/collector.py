"""`collect_changes`: from what sessions write to what is purged once it is committed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal, Protocol
from weakref import WeakSet, ref

from sqlalchemy import Connection, event
from sqlalchemy.orm import Mapper, Session, SessionTransaction

from fastapi_cacheinval import ConfigurationError, HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy.autocommit import stands
from fastapi_cacheinval.contrib.sqlalchemy.bulk import Bulk
from fastapi_cacheinval.contrib.sqlalchemy.delivery import purge, refuse_without_log
from fastapi_cacheinval.contrib.sqlalchemy.flushing import Flushes
from fastapi_cacheinval.contrib.sqlalchemy.ledger import Frame, Ledger
from fastapi_cacheinval.contrib.sqlalchemy.looking import Looks
from fastapi_cacheinval.contrib.sqlalchemy.older import Older
from fastapi_cacheinval.contrib.sqlalchemy.rules import RuleBook, Tags, Wide
from fastapi_cacheinval.contrib.sqlalchemy.sessions import Sessions, event_target
from fastapi_cacheinval.contrib.sqlalchemy.states import state_of
from fastapi_cacheinval.contrib.sqlalchemy.watch import Watch

__all__ = ["Collector", "Outbox", "collect_changes", "collectors"]

logger = logging.getLogger("fastapi_cacheinval.contrib.sqlalchemy")


class Outbox(Protocol):
    """Keeps the tags of a transaction in the same transaction, for a relay that purges them if nobody else does."""

    def add(self, session: Session, tags: tuple[str, ...], /) -> None:
        """Write the tags through the session, whose commit has begun; what it adds to the session is flushed."""
        ...


def collect_changes(
    sessions: Sessions,
    cache: HTTPCache,
    tags: Tags | None = None,
    *,
    wide: Wide | None = None,
    outbox: Outbox | None = None,
    wait: Literal["all"] | None = None,
) -> Collector:
    """Purge what sessions change, once it is committed; what is rolled back, or never committed, purges nothing.

    - `sessions`: a `sessionmaker`, `async_sessionmaker`, `scoped_session`, a class of sessions, or one session.
    - `tags`: for each mapped class a list of templates over its column attributes (`"product:{id}"`) and of functions
      `(object) -> iterable of tags`; subclasses inherit. Or one function for every object. A method `__cache_tags__` on
      a model counts besides.
    - `wide`: for classes whose statements do not tell which rows they change, tags that stand for any row.
    - `outbox`: is given the tags inside each transaction, before its commit.
    - `wait="all"`: a request is answered when every replica has applied the purge, and outside of requests a commit
      returns then. Code of an event loop that cannot await its commit does not wait.

    Call it once, when the app is set up. Raises `ConfigurationError` for a mapping that cannot work.
    """
    if not isinstance(cache, HTTPCache):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"collect_changes() takes the HTTPCache to purge, not {cache!r}.")
    if wait not in (None, "all"):
        raise ConfigurationError(f'wait is None or "all", not {wait!r}.')
    if outbox is not None and not callable(getattr(outbox, "add", None)):
        raise ConfigurationError(f"outbox has a method add(session, tags), and {outbox!r} has none.")
    collector = Collector(cache, RuleBook(tags, wide), outbox, wait)
    collector.watch(event_target(sessions))
    cache.expect_changes()
    return collector


def collectors() -> tuple[Collector, ...]:
    """All that watch now."""
    return tuple(_watching)


class Collector:
    """What `collect_changes` returns: it watches until `stop()`."""

    def __init__(
        self, cache: HTTPCache, book: RuleBook, outbox: Outbox | None, wait: Literal["all"] | None = None
    ) -> None:
        self.cache = cache
        self._outbox = outbox
        self._wait: Literal["all"] | None = wait
        self._ledger = Ledger()
        self._looks = looks = Looks(book, self._ledger)
        self._flushes = Flushes(book, self._ledger, looks)
        watch = Watch(book, self._ledger, self._flushes, looks, self._settle)
        self._bulk = Bulk(watch)
        self._older = Older(watch)
        self._book = book
        self._undo: list[Callable[[], None]] = []
        _watching.add(self)

    def watch(self, target: Any) -> None:
        """Listen to one more session, or class of sessions."""
        flushes = self._flushes
        for name, listener in (
            ("after_begin", flushes.began),
            ("before_flush", flushes.before_flush),
            ("after_flush", flushes.after_flush),
            ("after_flush_postexec", self._flushed),
            ("do_orm_execute", self._bulk.do_orm_execute),
            ("before_commit", self._before_commit),
            ("after_commit", self._after_commit),
            ("after_soft_rollback", self._rolled_back),
            ("after_transaction_end", self._ended),
        ):
            self._listen(target, name, listener)
        for name, heard in (
            ("before_insert", flushes.before_insert),
            ("before_update", flushes.before_write),
            ("before_delete", flushes.before_delete),
            ("after_insert", flushes.after_write),
            ("after_update", flushes.after_write),
            ("after_mapper_constructed", self._book.forget),
            ("mapper_configured", self._book.forget),
        ):
            self._listen(Mapper, name, heard)
        self._undo.append(self._older.stand_around(target))

    def _listen(self, target: Any, name: str, listener: Callable[..., Any]) -> None:
        event.listen(target, name, listener)
        self._undo.append(lambda: event.remove(target, name, listener))

    def stop(self) -> None:
        """Watch no longer; what is not committed yet is not purged."""
        _watching.discard(self)
        while self._undo:
            self._undo.pop()()

    def tags_of(self, target: Any) -> tuple[str, ...] | None:
        """The tags that a change of an object's row purges, by its templates; nothing is loaded for that.

        None where functions of the object, `__cache_tags__` among them, or values that are not loaded may have a part.
        """
        state = state_of(target)
        rules = self._book.own(state.mapper)
        if rules.functions or not rules.keys <= state.dict.keys():
            return None
        return (*rules.rendered(state.dict), *rules.wide)

    # -- a transaction's end --------------------------------------------------------------------

    def _before_commit(self, session: Session) -> None:
        """The tags of what is written are handed over, and those of what is written from here on as they are known.

        The commit itself flushes when its listeners are through: one that comes later finds what the app has changed.
        """
        if session.get_nested_transaction() is not None:
            frame = self._ledger.frame(session)
            # Told twice, the first time was for the transaction around it, which takes its savepoints along.
            if not frame.asked:
                frame.asked = True
                return
        self._ledger.begin_to_end(session)
        self._hand_over_if_ending(session)

    def _hand_over_if_ending(self, session: Session) -> None:
        root = self._ledger.root(session)
        if root is None or not root.ending:
            return
        self._note_others(session)
        tags = self._ledger.unhanded(session)
        if tags:
            try:
                refuse_without_log(self.cache, tags)
            except Exception:
                root.ending = False
                raise
        self._hand_over(session)

    def _hand_over(self, session: Session) -> None:
        tags = self._ledger.unhanded(session)
        if self._outbox is not None and tags:
            self._ledger.frame(session).handed.update(tags)
            self._outbox.add(session, tags)

    def _note_others(self, session: Session) -> None:
        """Note the tags of rows beside what was written where they are needed before the commit."""
        if self._outbox is not None or self.cache.settings.mutations_when_disconnected == "refuse":
            for later in self._ledger.later(session):
                if not later.told:
                    self._ledger.add(session, list(self._looks.committed(later)))

    def _settle(self, session: Session, connection: Connection | None) -> None:
        """What was written in autocommit stands already, and no commit comes: purge it at once."""
        frame = self._ledger.frame(session)
        if connection is None or not stands(connection):
            frame.open = True
            if connection is not None:
                frame.connections.add(connection)
                self._heed(session, connection)
            # Another listener has written something after ours was told of the commit.
            self._hand_over_if_ending(session)
            return
        frame.standing = True
        if not frame:
            return
        self._hand_over(session)
        try:
            self._purge(frame)
        finally:
            if not frame.open:
                frame.tags.clear()
                frame.everything = False

    def _heed(self, session: Session, connection: Connection) -> None:
        """A commit of the connection itself leaves what was written standing, whatever becomes of the session's own."""
        heeded = self._ledger.heeded(session)
        if heeded is None or connection in heeded:
            return
        here = ref(session)

        def committing(_: Connection) -> None:
            of = here()
            if of is not None:
                self._ledger.stand(of)

        event.listen(connection, "commit", committing)
        heeded[connection] = committing

    def _rolled_back(self, session: Session, _: SessionTransaction) -> None:
        """What a flush wrote in autocommit before it failed stands, and nobody knows how far it came."""
        whole, root = session.get_transaction(), self._ledger.root(session)
        if root is not None and whole is not None and not whole.is_active:
            # It was the flush of the commit that failed: there is no commit.
            root.ending = False
        if self._flushes.failed(session) and session.in_transaction():
            self._ledger.add_everything(session)
            self._ledger.frame(session).standing = True

    def _flushed(self, session: Session, _: object) -> None:
        for connection in self._flushes.finished(session):
            self._settle(session, connection)
        self._hand_over_if_ending(session)

    def _after_commit(self, session: Session) -> None:
        """Purge at once: before the transaction's end there may be a cancellation, which nobody would be told of."""
        frame = self._ledger.committed(session)
        if frame is None or not frame:
            return
        if session.get_nested_transaction() is not None:
            # SQLite's driver begins no transaction before a first savepoint: its release is a commit, which no rollback
            # undoes. It is purged at the transaction's end, whatever that is.
            frame.standing = frame.standing or any(stands(connection) for connection in frame.connections)
            return
        try:
            cut_off = self._looks.end(frame)
            if frame:
                self._purge(frame, torn=cut_off is not None)
            frame.failed = cut_off
        except BaseException as error:  # noqa: BLE001  # raised at the transaction's end, which here would be left open
            frame.failed = error

    def _ended(self, _: Session, transaction: SessionTransaction) -> None:
        """Of a commit that fails it is not known whether it is written, and autocommit stands: that is purged too."""
        frame = self._ledger.ended(transaction)
        if frame is None:
            return
        for connection, committing in frame.heeded.items():
            event.remove(connection, "commit", committing)
        if frame.failed is not None:
            raise frame.failed
        if frame and (frame.ending or frame.standing) and not frame.committed:
            frame.everything = frame.everything or not all(each.told for each in frame.later)
            try:
                if frame.tags or frame.everything:
                    self._purge(frame, torn=True)
            except Exception:
                # The error of the commit itself is the one to be heard of.
                logger.exception("what a failed commit may have changed could not be purged")

    def _purge(self, frame: Frame, *, torn: bool = False) -> None:
        tags = tuple(frame.tags)
        purge(self.cache, tags, everything=frame.everything, kept=self._outbox is not None, torn=torn, wait=self._wait)


_watching: WeakSet[Collector] = WeakSet()
