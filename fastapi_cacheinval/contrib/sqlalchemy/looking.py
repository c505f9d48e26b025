"""What is read around a change, and noted: rows as they stand after it, and what goes along with rows that go."""

from __future__ import annotations

import logging
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, TypeAlias

from sqlalchemy import Connection, Table
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapper, Session

from fastapi_cacheinval.contrib.sqlalchemy.autocommit import will_stand
from fastapi_cacheinval.contrib.sqlalchemy.errors import UnknownRows
from fastapi_cacheinval.contrib.sqlalchemy.keys import Identity, fits, kinds_of
from fastapi_cacheinval.contrib.sqlalchemy.ledger import Frame, Later, Ledger
from fastapi_cacheinval.contrib.sqlalchemy.locking import Kept, in_savepoint
from fastapi_cacheinval.contrib.sqlalchemy.reading import Reader, reading
from fastapi_cacheinval.contrib.sqlalchemy.rules import RuleBook
from fastapi_cacheinval.contrib.sqlalchemy.snapshots import is_innodb

__all__ = ["Looks", "Place", "Places"]

logger = logging.getLogger("fastapi_cacheinval.contrib.sqlalchemy")

Place: TypeAlias = tuple[Mapper[Any], Identity]
Places: TypeAlias = set[Place]


class Looks:
    """Reads the tags of rows for the flushes and the statements of the sessions that are watched."""

    def __init__(self, book: RuleBook, ledger: Ledger) -> None:
        self._book = book
        self._ledger = ledger

    @contextmanager
    def reading(
        self,
        session: Session,
        connection: Connection,
        options: Mapping[str, Any] | None = None,
        *,
        given: Iterable[tuple[Mapper[Any], list[Identity]]] = (),
        gone: bool = False,
        ahead: bool = False,
    ) -> Generator[Reader]:
        """Read on a connection by these keys; `gone` where their rows are about to be deleted.

        `ahead` where no row may be locked yet.

        A look that the database refuses because of a key that is of another type than its column's must not end the
        app's transaction. It stands in a savepoint then, and of such rows nobody knows the tags.
        """
        asked = list(given)
        careful = not all(_fit(mapper, identities) for mapper, identities in asked)
        kept = Kept()
        saving = in_savepoint(connection) if careful and _ends_with_an_error(connection) else nullcontext(kept)
        lost: dict[Mapper[Any], bool] = {}
        try:
            with saving as kept, reading(connection, self._book, options, ahead=ahead) as reader:
                yield reader
                lost = reader.lost
                if reader.others and not will_stand(connection):
                    told = not is_innodb(connection)
                    self._ledger.look_later(session, Later(connection, options, set(reader.others), told))
        except SQLAlchemyError:
            if not (careful and kept.transaction):
                raise
            lost = {mapper: True for mapper, _ in asked}
        for mapper in list(lost) if gone else ():
            lost.update(dict.fromkeys(self._book.along(mapper), True))
        for mapper, sides in lost.items():
            self._lose(session, mapper, alone=not sides)

    def along(
        self,
        session: Session,
        reader: Reader,
        kind: Mapper[Any] | Table,
        identities: list[Identity],
        again: Places,
        *,
        lock: bool = True,
    ) -> None:
        """Note what goes or changes along with rows that are about to be deleted; what stays is read again after it."""
        places: dict[tuple[Mapper[Any], bool | None], list[Identity]] = {}
        for other, identity, goes in list(reader.fallen(kind, identities)):
            places.setdefault((other, goes), []).append(identity)
        own = [(kind, identities)] if isinstance(kind, Mapper) else []
        for other, these in [*own, *((other, these) for (other, goes), these in places.items() if goes)]:
            for neighbour, identity in [*reader.neighbours(other, these), *reader.beside(other, these)]:
                places.setdefault((neighbour, None), []).append(identity)
        # Nothing is written in those beside: who links them waits for nobody without a watch, and with one neither.
        for (other, goes), these in sorted(places.items(), key=lambda place: place[0][1] is None):
            if not goes:
                again.update((other, each) for each in these)
            writes = goes is not None
            of_these = reader.tags(other, these, lock=lock and writes, gone=bool(goes), there=True, own=writes)
            self._ledger.add(session, list(of_these))

    def read_again(
        self,
        session: Session,
        places: Collection[Place],
        connection: Connection,
        options: Mapping[str, Any] | None = None,
        *,
        lock: bool = False,
        written: bool = False,
        own: bool | None = None,
        ahead: bool = False,
    ) -> None:
        """Note the tags of rows as they stand; `written` where they must be there, since they have just been written.

        `own` says that the transaction writes them, whether they are there or not: as `written` does unless told so.

        Of one that its key does not find, which the database has changed on its way in or hides, nobody knows the tags.
        """
        for mapper, identities in _by_class(place for place in places if self._book.tagged(place[0])).items():
            with self.reading(session, connection, options, given=[(mapper, identities)], ahead=ahead) as reader:
                if lock and reader.are_looked(mapper, identities):
                    reader.take({mapper: identities}, listed=True)
                of_these = reader.tags(mapper, identities, lock=lock, written=written, own=own)
                self._ledger.add(session, list(of_these))

    def end(self, frame: Frame) -> BaseException | None:
        """Note the tags of rows beside what was written, now that the transaction is over: nothing is locked for that.

        A transaction that changes them after the commit purges their tags itself. Returns the cancellation that has cut
        the look off, None if there was none.
        """
        cut_off: BaseException | None = None
        for later in frame.later:
            # A transaction around the session's own goes on, and is purged once more by the app.
            if later.connection.closed or later.connection.in_transaction():
                continue
            try:
                frame.tags.update(dict.fromkeys(self.committed(later)))
            except BaseException as error:  # noqa: BLE001  # the commit stands, and is purged in any case
                frame.everything = frame.everything or not later.told
                cut_off = cut_off if isinstance(error, Exception) else error
        frame.later.clear()
        return cut_off

    def committed(self, later: Later) -> Iterator[str]:
        """The tags of rows that a transaction has not locked, and that is over now, or about to be."""
        with reading(later.connection, self._book, later.options, ended=True) as reader:
            for mapper, identities in _by_class(later.places).items():
                yield from reader.tags(mapper, identities, lock=False)

    def _lose(self, session: Session, mapper: Mapper[Any], *, alone: bool) -> None:
        name = mapper.class_.__name__
        try:
            self._ledger.add(
                session, self._book.any_row(mapper.self_and_descendants, "a row that is not found again", alone=alone)
            )
        except UnknownRows:
            logger.warning(
                "a row of %s is written or linked, and others have changed it since the transaction began to read, or "
                "its key does not find it again: give %s wide tags",
                *(name, name),
            )
            self._ledger.add_everything(session)


def _by_class(places: Iterable[Place]) -> dict[Mapper[Any], list[Identity]]:
    rows: dict[Mapper[Any], list[Identity]] = {}
    for mapper, identity in places:
        rows.setdefault(mapper, []).append(identity)
    return rows


def _fit(mapper: Mapper[Any], identities: list[Identity]) -> bool:
    kinds = kinds_of(mapper)
    return all(fits(kind, value) for each in identities for kind, value in zip(kinds, each, strict=True))


def _ends_with_an_error(connection: Connection) -> bool:
    """Whether an error of one statement is the end of what goes on; SQLite goes on, and a savepoint may commit."""
    return connection.dialect.name != "sqlite" and not will_stand(connection)
