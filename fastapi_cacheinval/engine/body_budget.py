"""What may be held of bodies that are on their way to clients, beside what is stored: one sum for all requests.

A stream that is kept is read from the app at the app's pace, and waits here for a client that reads slowly. Past the
sum a stream goes through without being kept, at its client's pace, as it would without a cache.
"""

from __future__ import annotations

import threading

__all__ = ["BodyBudget", "Reservation"]


class BodyBudget:
    """At most so many bytes at a time; requests on any loop, in any thread, share it."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.held_bytes = 0
        self._lock = threading.Lock()

    def forked(self) -> None:
        """Hold nothing, in a process that was forked: the streams are its parent's."""
        self.held_bytes = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Hold so many bytes more, where there is room."""
        with self._lock:
            if self.held_bytes + size > self.most_bytes:
                return False
            self.held_bytes += size
            return True

    def give_back(self, size: int) -> None:
        """Hold so many bytes less."""
        with self._lock:
            self.held_bytes -= size


class Reservation:
    """What one stream holds of the budget."""

    __slots__ = ("_budget", "_held")

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._held = 0

    def grow(self, size: int) -> bool:
        """Hold so many bytes more; False where there is no room, and then nothing has changed."""
        if not self._budget.take(size):
            return False
        self._held += size
        return True

    def shrink(self, size: int) -> None:
        """Hold so many bytes less, as far as they are held."""
        size = min(size, self._held)
        self._held -= size
        self._budget.give_back(size)

    def close(self) -> None:
        """Hold nothing; harmless twice."""
        self.shrink(self._held)
