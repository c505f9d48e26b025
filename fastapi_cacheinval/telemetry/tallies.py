"""Counting from many threads without a lock and without an SDK's work for each: what is collected later."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Tally"]

Key = TypeVar("Key", bound=Hashable)


class _Own(threading.local, Generic[Key]):
    counts: dict[Key, int] | None = None


class Tally(Generic[Key]):
    """Counts by key; each thread writes a table of its own, so that none is lost."""

    def __init__(self) -> None:
        self._own: _Own[Key] = _Own()
        self._tables: list[dict[Key, int]] = []
        self._lock = threading.Lock()

    def count(self, key: Key) -> None:
        """One more of these."""
        counts = self._own.counts
        if counts is None:
            counts = self._own.counts = {}
            with self._lock:
                self._tables.append(counts)
        counts[key] = counts.get(key, 0) + 1

    def totals(self) -> dict[Key, int]:
        """What was counted up to now."""
        with self._lock:
            tables = list(self._tables)
        totals: Counter[Key] = Counter()
        for table in tables:
            # A copy is made in one step; its thread may be counting.
            totals.update(table.copy())
        return totals
