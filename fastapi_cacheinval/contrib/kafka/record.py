"""One record as it came, what is read in it, and the error of one that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from fastapi_cacheinval import CacheinvalError

__all__ = ["EVERYTHING", "PoisonRecord", "Reading", "Record", "TagsOf", "read"]

# More of one record are no tags any more but a reason for `EVERYTHING`.
_MOST_TAGS = 10_000
_TRACE = ("traceparent", "tracestate")


class PoisonRecord(CacheinvalError):
    """A record that no tags can be found for; its text tells what is wrong, never what the record holds."""


class _Everything(frozenset[str]):
    """What a function of tags returns for a change that touches all: a truncated table, a restored backup."""

    def __repr__(self) -> str:
        return "EVERYTHING"


EVERYTHING: Final[frozenset[str]] = _Everything()
"""What a function of tags returns to have everything purged."""


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

    @property
    def size(self) -> int:
        """Bytes of key and value."""
        return len(self.key or b"") + len(self.value or b"")


TagsOf = Callable[[Record], Iterable[str] | None]


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read in one record: tags, or everything, or why not; and the trace that it belongs to."""

    tags: tuple[str, ...] = ()
    everything: bool = False
    error: Exception | None = None
    cause: Mapping[str, str] | None = None


def read(record: Record, tags_of: TagsOf, most_bytes: int) -> Reading:
    """Read a record by the user's function; whatever that raises, and whatever it returns, becomes a reading."""
    cause = _cause(record)
    if record.size > most_bytes:
        error = PoisonRecord(f"It has {record.size} bytes; the most that is read is {most_bytes}.")
        return Reading(error=error, cause=cause)
    try:
        found = tags_of(record)
        if found is EVERYTHING:
            return Reading(everything=True, cause=cause)
        return Reading(tags=_checked(found), cause=cause)
    except Exception as error:  # noqa: BLE001  # a record must not stop those behind it, whatever is wrong with it
        return Reading(error=error, cause=cause)


def _checked(found: object) -> tuple[str, ...]:
    if found is None:
        return ()
    if isinstance(found, str | bytes) or not isinstance(found, Iterable):
        raise PoisonRecord(f"Its tags are to be an iterable of str, not {type(found).__name__}.")
    tags: dict[str, None] = {}
    for tag in found:  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(tag, str) or not tag:
            raise PoisonRecord("One of its tags is " + ("empty." if tag == "" else "no str."))
        tags[tag] = None
        if len(tags) > _MOST_TAGS:
            raise PoisonRecord(f"It has more than {_MOST_TAGS} tags: EVERYTHING is for that.")
    return tuple(tags)


def _cause(record: Record) -> Mapping[str, str] | None:
    fields: dict[str, str] = {}
    for name, value in record.headers:
        if name.lower() in _TRACE and value is not None and len(value) <= 512:
            fields[name.lower()] = value.decode("ascii", "replace")
    return fields if "traceparent" in fields else None
