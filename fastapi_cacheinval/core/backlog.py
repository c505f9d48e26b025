"""Purges without a number, because the log cannot be reached, and those whose number may be lost: none is forgotten."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from fastapi_cacheinval.core.pieces import LINE_TAG_BYTES, LINE_TAGS
from fastapi_cacheinval.core.tag_limits import size_of
from fastapi_cacheinval.core.tags import ALL

__all__ = ["Backlog", "Due", "Recent"]


class Due(NamedTuple):
    """A purge that is to be written; `fences` are lifted once it has been, `entries` name what it stands for."""

    tags: tuple[str, ...]
    soft: bool
    fences: tuple[int, ...]
    entries: tuple[int, ...]


class Backlog:
    """A queue of purges; past `most_entries`, or `most_queued` tags in all of them, it becomes one purge of everything.

    What is written together shares one line, of at most `most_tags` tags, hard and soft apart. What is larger than a
    line goes by itself.
    """

    __slots__ = ("_entries", "_last", "_most_entries", "_most_queued", "_most_tags", "_queued", "_since")

    def __init__(self, most_entries: int = 10_000, most_tags: int = LINE_TAGS, most_queued: int = 100_000) -> None:
        self._entries: dict[int, tuple[tuple[str, ...], bool, tuple[int, ...]]] = {}
        # Since when each waits.
        self._since: dict[int, float] = {}
        self._last = 0
        self._queued = 0
        self._most_entries = most_entries
        self._most_tags = most_tags
        self._most_queued = most_queued

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Backlog {len(self._entries)} purges>"

    @property
    def oldest(self) -> float | None:
        """Since when the oldest purge waits; None where none does."""
        return next(iter(self._since.values()), None)

    def add(self, tags: tuple[str, ...], *, soft: bool, fence: int | None = None, now: float = 0.0) -> int:
        """Queue a purge; the number names its entry."""
        fences = () if fence is None else (fence,)
        if len(self._entries) >= self._most_entries or self._queued + len(tags) > self._most_queued:
            fences = (*(each for entry in self._entries.values() for each in entry[2]), *fences)
            now = min(now, next(iter(self._since.values()), now))
            self._entries.clear()
            self._since.clear()
            self._queued = 0
            tags, soft = (ALL,), False
        self._last += 1
        self._queued += len(tags)
        self._entries[self._last] = (tags, soft, fences)
        self._since[self._last] = now
        return self._last

    def due(self) -> Due | None:
        """What to write next, from the first entry on; None where there is nothing."""
        tags: dict[str, None] = {}
        fences: list[int] = []
        entries: list[int] = []
        soft: bool | None = None
        size = 0
        for number, (named, softly, held) in self._entries.items():
            if len(named) > self._most_tags and not entries:
                return Due(named, softly, held, (number,))
            if entries and (softly != soft or len(tags) + len(named) > self._most_tags):
                break
            size += size_of(named)
            if entries and size > LINE_TAG_BYTES:
                break
            soft = softly
            tags.update(dict.fromkeys(named))
            fences += held
            entries.append(number)
        return Due(tuple(tags), bool(soft), tuple(fences), tuple(entries)) if entries else None

    def postpone(self, due: Due) -> None:
        """Have what could not be written wait behind the others, which it may not keep from being written."""
        for entry in due.entries:
            if entry in self._entries:
                self._entries[entry] = self._entries.pop(entry)

    def written(self, due: Due) -> tuple[int, ...]:
        """Take out what a line stood for; the fences to lift, none where it is a part of everything now."""
        if any(entry not in self._entries for entry in due.entries):
            # Everything is going to be purged in their place, and their fences go with that.
            return ()
        for entry in due.entries:
            self._queued -= len(self._entries.pop(entry)[0])
            del self._since[entry]
        return due.fences


class Recent:
    """What this replica has purged of late: in a new term it is written again.

    Two servers may take writes for a while, one of them in vain: what it numbered, the term that goes on has not heard
    of, and others may have filled in that term before. `seconds` is the longest such while that is covered, and the
    `most` last purges are. More than `most_tags` in all of them are kept as one purge of everything.
    """

    __slots__ = ("_most_tags", "_purges", "_seconds", "_tags")

    def __init__(self, seconds: float = 60.0, most: int = 1_000, most_tags: int = 100_000) -> None:
        self._purges: deque[tuple[float, tuple[str, ...], bool]] = deque(maxlen=most)
        self._seconds = seconds
        self._most_tags = most_tags
        self._tags = 0

    def add(self, tags: tuple[str, ...], *, soft: bool, now: float) -> None:
        """A purge has its number."""
        if len(self._purges) == self._purges.maxlen:
            self._tags -= len(self._purges[0][1])
        self._purges.append((now, tags, soft))
        self._tags += len(tags)
        if self._tags > self._most_tags:
            self._purges.clear()
            self._purges.append((now, (ALL,), False))
            self._tags = 1

    def take(self, now: float) -> list[tuple[tuple[str, ...], bool]]:
        """What may have to be written again, oldest first; it is forgotten here."""
        taken = [(tags, soft) for at, tags, soft in self._purges if now - at < self._seconds]
        self._purges.clear()
        self._tags = 0
        return taken
