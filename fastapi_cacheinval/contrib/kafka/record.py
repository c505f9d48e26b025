"""One record as it came, and what is read in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import cast

from confluent_kafka import Message

from fastapi_cacheinval.sources import EVERYTHING, Change, UnreadableEvent
from fastapi_cacheinval.sources.changes import causes_in, read_by

__all__ = ["EVERYTHING", "PoisonRecord", "Record", "TagsOf", "read"]

# More of one record are no tags any more but a reason for `EVERYTHING`.
_MOST_TAGS = 10_000

PoisonRecord = UnreadableEvent
"""A record that no tags can be found for; its text tells what is wrong, never what the record holds."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record of a topic; contents stay out of its `repr`.

    `timestamp` is seconds since the epoch, None where the record has none. Header names may come more than once.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None = field(default=None, repr=False)
    value: bytes | None = field(default=None, repr=False)
    headers: tuple[tuple[str, bytes | None], ...] = field(default=(), repr=False)
    timestamp: float | None = None

    @classmethod
    def of(cls, message: Message) -> Record:
        """A record as the client gives it."""
        kind, milliseconds = message.timestamp()
        try:
            found = cast("Iterable[tuple[str, str | bytes | None]]", message.headers() or ())
            headers = tuple((name, value.encode() if isinstance(value, str) else value) for name, value in found)
        except (UnicodeError, TypeError, ValueError):
            # Names that are no text: what is in the record counts more.
            headers = ()
        return cls(
            message.topic() or "",
            message.partition() or 0,
            message.offset() or 0,
            message.key(),
            message.value(),
            headers,
            milliseconds / 1000 if kind else None,
        )

    @property
    def size(self) -> int:
        """Bytes of key and value."""
        return len(self.key or b"") + len(self.value or b"")


TagsOf = Callable[[Record], Iterable[str] | Change | None]


def read(record: Record, tags_of: TagsOf, most_bytes: int, *, soft: bool = False) -> Change:
    """What a record asks to purge, by the user's function.

    Raises `PoisonRecord`, whatever that raises or returns, but for an `OSError`, which is not about the record.
    """
    if record.size > most_bytes:
        raise PoisonRecord(f"It has {record.size} bytes; the most that is read is {most_bytes}.")
    return read_by(tags_of, record, soft=soft, causes=causes_in(record.headers), most_tags=_MOST_TAGS)
