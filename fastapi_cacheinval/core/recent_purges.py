"""The purges that a replica has obeyed last, so that somebody may ask which of them hit a response."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from fastapi_cacheinval.core.events import PurgeEvent
from fastapi_cacheinval.core.tags import ALL, path_tag

__all__ = ["RecentPurges"]

_MOST_PURGES = 1000
_MOST_TAGS = 50_000


class RecentPurges:
    """Bounded in purges and in their tags: the oldest make room."""

    __slots__ = ("_kept", "_tags")

    def __init__(self) -> None:
        self._kept: deque[PurgeEvent] = deque()
        self._tags = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[PurgeEvent]:
        # A copy is made in one step; another thread may be adding one.
        return iter(list(self._kept))

    def add(self, purge: PurgeEvent) -> None:
        """Remember one more."""
        self._kept.append(purge)
        self._tags += len(purge.tags) + len(purge.paths)
        while len(self._kept) > _MOST_PURGES or (self._tags > _MOST_TAGS and len(self._kept) > 1):
            gone = self._kept.popleft()
            self._tags -= len(gone.tags) + len(gone.paths)

    def last_of(self, tags: Iterable[str]) -> PurgeEvent | None:
        """The last remembered purge of any of these tags, reserved ones included; None where there is none."""
        wanted = frozenset(tags)
        for purge in reversed(list(self._kept)):
            everything = purge.everything and ALL in wanted
            if everything or not wanted.isdisjoint(purge.tags) or any(path_tag(each) in wanted for each in purge.paths):
                return purge
        return None
