"""Trouble that comes again and again, and is worth one line when it begins."""

from __future__ import annotations

import logging
from collections.abc import Hashable

__all__ = ["LogOnce"]

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
