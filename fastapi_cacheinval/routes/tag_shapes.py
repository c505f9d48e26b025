"""Tag templates by their shape, `product:{}`: which of them may give the same tag, whatever stands in their braces."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches

from fastapi_cacheinval.core.stars import fits
from fastapi_cacheinval.core.tags import TagTemplate

__all__ = ["Nearest", "Shapes", "lonely", "may_be", "shape_of"]

# How much alike two tags are that are taken for one misspelt: product:{} and products:{} are.
_ALIKE = 0.75
# About a second's.
_MOST_COMPARED = 100_000


def shape_of(template: TagTemplate) -> str:
    """Its text without the names in its braces."""
    return "".join(literal + ("{}" if name is not None else "") for literal, name in template.parts)


def may_be(one: str, other: str) -> bool:
    """Whether what the first shape matches holds a tag of the second."""
    return fits(one.split("{}"), other.replace("{}", "x"))


class Nearest:
    """Finds which known shape may have been meant; it gives up after so many comparisons, which are slow."""

    def __init__(self, known: Mapping[str, object]) -> None:
        self._known = known
        self._left = _MOST_COMPARED

    def to(self, shape: str) -> str | None:
        """The known shape that is most alike, if any is alike and there is still time to look."""
        self._left -= len(self._known)
        if self._left < 0:
            return None
        return next(iter(get_close_matches(shape, self._known, 1, _ALIKE)), None)


class Shapes:
    """Many shapes, of which those are found quickly that may give the same tag as another one.

    They begin alike: of two such shapes what stands before the first brace of one begins that of the other.
    """

    def __init__(self, shapes: Iterable[str]) -> None:
        by_start: dict[str, list[str]] = {}
        for shape in dict.fromkeys(shapes):
            by_start.setdefault(shape.partition("{}")[0], []).append(shape)
        self._by_start = by_start
        self._starts = sorted(by_start)

    def matching(self, shape: str) -> Iterator[str]:
        """Those that may give the same tag as this one."""
        start, brace, _ = shape.partition("{}")
        # What is shorter, and what goes on: a shape without braces has nothing that could go on.
        starts = [start[:length] for length in range(len(start) + 1)]
        if brace:
            place = bisect_left(self._starts, start)
            while place < len(self._starts) and self._starts[place].startswith(start):
                starts.append(self._starts[place])
                place += 1
        for each in dict.fromkeys(starts):
            for known in self._by_start.get(each, ()):
                if may_be(shape, known) or may_be(known, shape):
                    yield known


def lonely(mine: Mapping[str, object], others: Mapping[str, object], *, more: bool) -> Iterator[tuple[str, str | None]]:
    """The shapes of one side that match none of the other, each with the one there that may have been meant.

    Where the other side has `more` than is known, only those are told that have one.
    """
    shapes, own, nearest = Shapes(others), Shapes(mine), Nearest(others)
    for shape in mine:
        if any(True for _ in shapes.matching(shape)):
            continue
        near = nearest.to(shape)
        # Next to one that is matched, it is a tag of its own.
        if near is not None and any(True for _ in own.matching(near)):
            near = None
        if near is not None or not more:
            yield shape, near
