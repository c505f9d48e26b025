"""What people read of facts, short whatever the size of these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["cut", "few", "in_unit"]

_Named = TypeVar("_Named")

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60))


def cut(text: str, most: int) -> str:
    """A text of at most so many characters; an ellipsis stands for what is left out."""
    return text if len(text) <= most else f"{text[: max(0, most - 1)]}…"


def few(things: Sequence[_Named], most: int, name: Callable[[_Named], str] = str) -> str:
    """The names of the first things, and how many more there are; empty for no things."""
    more = len(things) - most
    return ", ".join(map(name, things[:most])) + (f" and {more:,} more" if more > 0 else "")


def in_unit(seconds: float) -> tuple[float, str]:
    """A time in the largest unit that it holds at least twice, and that unit."""
    return next(((seconds / length, unit) for unit, length in _UNITS if seconds >= 2 * length), (seconds, "s"))
