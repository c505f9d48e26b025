"""Fences: the tags of purges that have no number yet."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from fastapi_cacheinval.core.tags import ALL

__all__ = ["Fences"]


class Fences:
    """Which tags are fenced, and since when; as many as fences stand. `last` has the last open fence of each tag.

    More than `most_tags` tags at a time are fenced as everything: a fence is short, and it must not take long to set.
    """

    __slots__ = ("_below", "_count", "_most_tags", "_open", "last")

    def __init__(self, most_tags: int = 10_000) -> None:
        self._most_tags = most_tags
        self._count = 0
        self.last: dict[str, int] = {}
        self._open: dict[int, tuple[str, ...]] = {}
        # The fences of a tag before its last one, oldest first; some of them may have been lifted.
        self._below: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __bool__(self) -> bool:
        return bool(self.last)

    def add(self, tags: Collection[str]) -> int:
        """Open a fence; the number counts fences, and lifts this one."""
        self._count += 1
        fence = self._count
        if len(self.last) + len(tags) > self._most_tags:
            tags = (ALL,)
        named = self._open[fence] = tuple(dict.fromkeys(tags))
        for tag in named:
            earlier = self.last.get(tag)
            if earlier is not None:
                self._still_open(self._below.setdefault(tag, [])).append(earlier)
            self.last[tag] = fence
        return fence

    def any_of(self, tags: Iterable[str]) -> bool:
        """Whether one of the tags is fenced, or everything is."""
        last = self.last
        return bool(last) and (ALL in last or any(tag in last for tag in tags))

    def lift(self, fence: int) -> None:
        """End a fence; harmless twice."""
        for tag in self._open.pop(fence, ()):
            if self.last.get(tag) == fence:
                # An earlier fence of the same tag may still wait for its number.
                earlier = self._still_open(self._below.get(tag, []))
                if earlier:
                    self.last[tag] = earlier.pop()
                else:
                    del self.last[tag]
                    self._below.pop(tag, None)

    def _still_open(self, fences: list[int]) -> list[int]:
        """The same list without those at its end that have been lifted."""
        while fences and fences[-1] not in self._open:
            fences.pop()
        return fences
