"""The tags of what each transaction and savepoint has changed, until it is known what becomes of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection
from sqlalchemy.orm import Session, SessionTransaction

__all__ = ["Frame", "Later", "Ledger"]


@dataclass(slots=True)
class Later:
    """Rows, by class and key, whose tags are to be read on a connection with these execution options.

    `told` where the transaction has noted their tags as it saw them. PostgreSQL may hide the rows from the role, or the
    path, of the next transaction.
    """

    connection: Connection
    options: Mapping[str, Any] | None
    places: set[Any]
    told: bool


@dataclass(slots=True)
class Frame:
    """What one transaction or savepoint has changed.

    `everything` where it is not known what was changed. `handed` went to the outbox in it; `ending` once its commit was
    begun, `committed` once that is done; `asked` once a savepoint has been told of a commit; `failed` is what its purge
    has raised. `standing` once something was written in autocommit, which no rollback takes back; `open` once something
    was written that waits for the commit, on these `connections`; those of a whole transaction are `heeded`, each by a
    listener for a commit of its own. `later` are rows beside what was written, whose tags are read after the commit.
    """

    tags: dict[str, None] = field(default_factory=dict[str, None])
    everything: bool = False
    handed: set[str] = field(default_factory=set[str])
    ending: bool = False
    committed: bool = False
    asked: bool = False
    failed: BaseException | None = None
    standing: bool = False
    open: bool = False
    connections: set[Connection] = field(default_factory=set[Connection])
    later: list[Later] = field(default_factory=list[Later])
    heeded: dict[Connection, Any] = field(default_factory=dict[Connection, Any])

    def __bool__(self) -> bool:
        return bool(self.tags) or self.everything or bool(self.later)

    def join(self, other: Frame) -> None:
        """Take over what another has changed."""
        self.tags.update(other.tags)
        self.handed.update(other.handed)
        self.everything = self.everything or other.everything
        self.standing = self.standing or other.standing
        self.open = self.open or other.open
        self.connections |= other.connections
        self.later += other.later


class Ledger:
    """A frame for each transaction that is open; a savepoint's is joined to its parent's where it is released."""

    def __init__(self) -> None:
        self._frames: WeakKeyDictionary[SessionTransaction, Frame] = WeakKeyDictionary()

    @staticmethod
    def _own(transaction: SessionTransaction | None) -> SessionTransaction | None:
        # What a flush opens for itself is no transaction of its own.
        while transaction is not None and not transaction.nested and transaction.parent is not None:
            transaction = transaction.parent
        return transaction

    def frame(self, session: Session) -> Frame:
        """The frame of the innermost savepoint, or of the transaction."""
        transaction = session.get_nested_transaction() or session.get_transaction()
        assert transaction is not None
        frame = self._frames.get(transaction)
        if frame is None:
            frame = self._frames[transaction] = Frame()
        return frame

    def committed(self, session: Session) -> Frame | None:
        """The innermost savepoint is released, or the transaction committed: its frame."""
        transaction = session.get_nested_transaction() or session.get_transaction()
        frame = None if transaction is None else self._frames.get(transaction)
        if frame is not None:
            frame.committed = True
        return frame

    def root(self, session: Session) -> Frame | None:
        """The frame of the transaction itself, where it has one."""
        transaction = session.get_transaction()
        return None if transaction is None else self._frames.get(transaction)

    def begin_to_end(self, session: Session) -> None:
        """The commit of the transaction is begun."""
        transaction = session.get_transaction()
        if transaction is not None:
            self._frames.setdefault(transaction, Frame()).ending = True

    def heeded(self, session: Session) -> dict[Connection, Any] | None:
        """The listeners for commits of the connections of the transaction that is open."""
        transaction = session.get_transaction()
        return None if transaction is None else self._frames.setdefault(transaction, Frame()).heeded

    def stand(self, session: Session) -> None:
        """A connection is committed: unless by the session's own commit, all that is written stands."""
        for frame in self._open(session):
            frame.standing = frame.standing or not frame.ending

    def _open(self, session: Session) -> Iterator[Frame]:
        transaction = self._own(session.get_nested_transaction() or session.get_transaction())
        while transaction is not None:
            frame = self._frames.get(transaction)
            if frame is not None:
                yield frame
            transaction = self._own(transaction.parent)

    def add(self, session: Session, tags: Iterable[str]) -> None:
        """Note what is changed."""
        named = dict.fromkeys(tags)
        if named:
            self.frame(session).tags.update(named)

    def look_later(self, session: Session, later: Later) -> None:
        """Note rows whose tags are to be read when the transaction is over."""
        frame = self.frame(session)
        for each in frame.later:
            if each.connection is later.connection and each.options == later.options:
                each.places.update(later.places)
                return
        frame.later.append(later)

    def later(self, session: Session) -> list[Later]:
        """These rows, of all savepoints that are open."""
        return [each for frame in self._open(session) for each in frame.later]

    def add_everything(self, session: Session) -> None:
        """Note that something was changed of which nobody knows what it is."""
        self.frame(session).everything = True

    def unhanded(self, session: Session) -> tuple[str, ...]:
        """The tags, outermost first, that have not been handed to the outbox."""
        frames = list(self._open(session))
        handed = {tag for frame in frames for tag in frame.handed}
        return tuple(dict.fromkeys(tag for frame in reversed(frames) for tag in frame.tags if tag not in handed))

    def ended(self, transaction: SessionTransaction) -> Frame | None:
        """The frame of a whole transaction that has ended; a released savepoint's goes up, another's is dropped."""
        frame = self._frames.pop(transaction, None)
        if frame is None or transaction.parent is None:
            return frame
        parent = self._own(transaction.parent)
        if (frame.committed or frame.standing) and parent is not None:
            self._frames.setdefault(parent, Frame()).join(frame)
        return None
