"""What is read around a change, and noted: rows as they stand after it, and what goes along with rows that go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from sqlalchemy import Connection, Table
from sqlalchemy.orm import Mapper, Session

from fastapi_cacheinval.contrib.sqlalchemy.ledger import Ledger
from fastapi_cacheinval.contrib.sqlalchemy.reading import Reader, reading
from fastapi_cacheinval.contrib.sqlalchemy.rules import RuleBook
from fastapi_cacheinval.contrib.sqlalchemy.schema import Identity

__all__ = ["Looks", "Places"]

Places: TypeAlias = set[tuple[Mapper[Any], Identity]]


class Looks:
    """Reads the tags of rows for the flushes and the statements of the sessions that are watched."""

    def __init__(self, book: RuleBook, ledger: Ledger) -> None:
        self._book = book
        self._ledger = ledger

    def along(
        self,
        session: Session,
        reader: Reader,
        kind: Mapper[Any] | Table,
        identities: list[Identity],
        again: Places,
    ) -> None:
        """Note what goes or changes along with rows that are about to be deleted; what stays is read again after it."""
        fallen: dict[Mapper[Any], list[Identity]] = {}
        stays: dict[Mapper[Any], list[Identity]] = {}
        beside: dict[Mapper[Any], list[Identity]] = {}
        for other, identity, goes in list(reader.fallen(kind, identities)):
            place = beside if goes is None else fallen if goes else stays
            place.setdefault(other, []).append(identity)
        own = {kind: identities} if isinstance(kind, Mapper) else {}
        for other, these in (*own.items(), *fallen.items()):
            for neighbour, identity in [*reader.neighbours(other, these), *reader.beside(other, these)]:
                beside.setdefault(neighbour, []).append(identity)
        for other, these in (*stays.items(), *beside.items()):
            again.update((other, each) for each in these)
        for other, these in (*fallen.items(), *stays.items()):
            self._ledger.add(session, list(reader.tags(other, these, lock=True)))
        for other, these in beside.items():
            # Nothing is written in these rows: who links them waits for nobody without a watch, and with one neither.
            self._ledger.add(session, list(reader.tags(other, these, lock=False)))

    def read_again(
        self,
        session: Session,
        places: Places,
        connection: Connection,
        options: Mapping[str, Any] | None = None,
        *,
        lock: bool = False,
    ) -> None:
        """Note the tags of rows as they stand."""
        rows: dict[Mapper[Any], list[Identity]] = {}
        for mapper, identity in places:
            if self._book.tagged(mapper):
                rows.setdefault(mapper, []).append(identity)
        for mapper, identities in rows.items():
            with reading(connection, self._book, options) as reader:
                self._ledger.add(session, list(reader.tags(mapper, identities, lock=lock)))
