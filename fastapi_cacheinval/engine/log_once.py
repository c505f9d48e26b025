"""Trouble that comes again and again, and is worth one line when it begins."""

from __future__ import annotations

import logging
from collections.abc import Hashable

__all__ = ["LogOnce", "Seldom"]

_MOST = 1_000


class LogOnce:
    """What is in trouble now: the level to log at is ERROR for the first time and DEBUG until it is well again."""

    def __init__(self) -> None:
        self._now: set[Hashable] = set()

    def level(self, what: Hashable) -> int:
        """Take note that something has failed."""
        if what in self._now or len(self._now) >= _MOST:
            return logging.DEBUG
        self._now.add(what)
        return logging.ERROR

    def well(self, what: Hashable) -> None:
        """Take note that it has not."""
        self._now.discard(what)


class Seldom:
    """What may be said a few times in a row, and then once in so many seconds."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._left = float(most)
        self._at = 0.0

    def may(self, now: float) -> bool:
        """Whether it may be said now, at a moment of one clock; it counts as said then."""
        self._left = min(self._most, self._left + max(0.0, now - self._at) / self._seconds)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
