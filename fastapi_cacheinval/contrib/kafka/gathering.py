"""Records on their way into one purge: gathered up to a bound, taken together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fastapi_cacheinval.contrib.kafka.record import Record
from fastapi_cacheinval.sources import Change, UnreadableEvent

__all__ = ["Batch", "Gathering", "Place", "Reached"]

Place = tuple[str, int]
"""A topic and the number of a partition."""

# A span has no use for more links; what has no tags is committed after so many records.
_MOST_CAUSES = 128
_MOST_RECORDS = 10_000


@dataclass(frozen=True, slots=True)
class Reached:
    """The offset after what was read, and the assignment of the partition under which it was."""

    offset: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What is purged together, and the offsets that stand for it."""

    records: int
    changes: tuple[Change, ...]
    refused: tuple[tuple[Record, Exception], ...]
    reached: Mapping[Place, Reached]


@dataclass(slots=True)
class Gathering:
    """What has come and is not taken. Not safe for threads: who shares it locks it."""

    most_tags: int
    most_bytes: int
    records: int = 0
    _bytes: int = 0
    # By whether they are soft.
    _everything: set[bool] = field(default_factory=set[bool])
    _tags: dict[tuple[str, bool], None] = field(default_factory=dict[tuple[str, bool], None])
    _refused: list[tuple[Record, Exception]] = field(default_factory=list[tuple[Record, Exception]])
    _causes: dict[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    _reached: dict[Place, Reached] = field(default_factory=dict[Place, Reached])

    @property
    def empty(self) -> bool:
        """Whether there is nothing to take."""
        return not self._reached

    @property
    def full(self) -> bool:
        """Whether no more should be added before it is taken."""
        return len(self._tags) >= self.most_tags or self._bytes >= self.most_bytes or self.records >= _MOST_RECORDS

    def add(self, record: Record, found: Change | Exception, epoch: int) -> None:
        """Add a record with what was read in it, or why that could not be."""
        self.records += 1
        self._reached[record.topic, record.partition] = Reached(record.offset + 1, epoch)
        if not isinstance(found, Exception):
            self._name(found)
            return
        self._refused.append((record, found))
        self._bytes += record.size
        if isinstance(found, UnreadableEvent):
            self._name(found.readable)

    def lose(self, place: Place, reached: Reached, wide: Change) -> None:
        """Events of a partition were lost: purge what is wide enough for them."""
        self._reached[place] = reached
        self._name(wide)

    def _name(self, change: Change) -> None:
        if change.everything:
            self._everything.add(change.soft)
        for tag in change.tags:
            if (tag, change.soft) not in self._tags:
                self._tags[tag, change.soft] = None
                self._bytes += len(tag)
        for cause in change.causes:
            if len(self._causes) < _MOST_CAUSES:
                self._causes.setdefault(cause.get("traceparent", ""), cause)

    def take(self) -> Batch:
        """All of it; it is empty then."""
        causes = tuple(self._causes.values())
        changes = [
            Change((), soft, everything=True, causes=causes)
            if soft in self._everything
            else Change(tuple(tag for tag, its in self._tags if its is soft), soft, causes=causes)
            for soft in (False, True)
        ]
        batch = Batch(self.records, tuple(filter(None, changes)), tuple(self._refused), self._reached)
        self.records = self._bytes = 0
        self._everything, self._tags, self._refused, self._causes, self._reached = set(), {}, [], {}, {}
        return batch
