"""Records on their way into one purge: gathered up to a bound, taken together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fastapi_cacheinval.contrib.kafka.record import Reading, Record

__all__ = ["Batch", "Gathering", "Place", "Reached", "parts"]

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
    tags: tuple[str, ...]
    everything: bool
    refused: tuple[tuple[Record, Exception], ...]
    causes: tuple[Mapping[str, str], ...]
    reached: Mapping[Place, Reached]


@dataclass(slots=True)
class Gathering:
    """What has come and is not taken. Not safe for threads: who shares it locks it."""

    most_tags: int
    most_bytes: int
    records: int = 0
    _bytes: int = 0
    _everything: bool = False
    _tags: dict[str, None] = field(default_factory=dict[str, None])
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

    def add(self, record: Record, reading: Reading, epoch: int) -> None:
        """Add a record that was read."""
        self.records += 1
        self._reached[record.topic, record.partition] = Reached(record.offset + 1, epoch)
        if reading.error is not None:
            self._refused.append((record, reading.error))
            self._bytes += record.size
        self._everything |= reading.everything
        self._name(reading.tags)
        cause = reading.cause
        if cause is not None and len(self._causes) < _MOST_CAUSES:
            self._causes.setdefault(cause["traceparent"], cause)

    def lose(self, place: Place, reached: Reached, wide: tuple[str, ...] | None) -> None:
        """Events of a partition were lost: purge what is wide enough for them, or everything."""
        self._reached[place] = reached
        self._everything |= wide is None
        self._name(wide or ())

    def _name(self, tags: tuple[str, ...]) -> None:
        for tag in tags:
            if tag not in self._tags:
                self._tags[tag] = None
                self._bytes += len(tag)

    def take(self) -> Batch:
        """All of it; it is empty then."""
        batch = Batch(
            self.records,
            () if self._everything else tuple(self._tags),
            self._everything,
            tuple(self._refused),
            tuple(self._causes.values()),
            self._reached,
        )
        self.records = self._bytes = 0
        self._everything = False
        self._tags, self._refused, self._causes, self._reached = {}, [], {}, {}
        return batch


def parts(tags: tuple[str, ...], most_tags: int, most_bytes: int) -> Iterator[tuple[str, ...]]:
    """Tags in their order, in as few parts as keep to both bounds; a tag over the bytes is a part of its own."""
    part: list[str] = []
    size = 0
    for tag in tags:
        if part and (len(part) >= most_tags or size + len(tag) > most_bytes):
            yield tuple(part)
            part, size = [], 0
        part.append(tag)
        size += len(tag)
    if part:
        yield tuple(part)
