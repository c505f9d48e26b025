"""Which nodes are past use: buckets by deadline, so that finding one never means looking at the others."""

from __future__ import annotations

from heapq import heappop, heappush
from math import ceil, frexp, inf, ldexp
from typing import Generic, TypeVar, cast

from fastapi_cacheinval.stores.rings import NOWHERE, Links, Node

__all__ = ["Deadlines"]

Value = TypeVar("Value")

# A bucket with its slots in the dict and in the heap, and its float.
_BUCKET = 64 + 104 + 16 + 24

_FINEST = 0.125


class Deadlines(Generic[Value]):
    """Nodes in buckets by the end of their life.

    A bucket spans at most a sixteenth of the life that is left when a node comes in, or an eighth of
    a second: nothing is found too early, and nothing later than that. So at most 32 buckets are open
    for each doubling of the longest life, however many nodes there are. Seconds come in as arguments.
    """

    __slots__ = ("_buckets", "_ends")

    def __init__(self) -> None:
        self._buckets: dict[float, Links] = {}
        self._ends: list[float] = []

    @property
    def size_bytes(self) -> int:
        """Bytes of the buckets themselves; the links in the nodes count with the nodes."""
        return len(self._ends) * _BUCKET

    def add(self, node: Node[Value], now: float) -> None:
        """Put a node that is in no bucket where its deadline belongs; one without a deadline stays out."""
        if node.until == inf:
            return
        left = node.until - now
        # The power of two that goes 16 to 32 times into what is left: exact as a float.
        width = ldexp(1.0, frexp(left)[1] - 5) if left > 16 * _FINEST else _FINEST
        end = ceil(node.until / width) * width
        bucket = self._buckets.get(end)
        if bucket is None:
            bucket = self._buckets[end] = Links()
            heappush(self._ends, end)
        last = bucket.before
        node.before, node.after = last, bucket
        last.after = bucket.before = node

    def discard(self, node: Node[Value]) -> None:
        """Take a node out of its bucket, if it is in one."""
        if node.after is not NOWHERE:
            node.before.after, node.after.before = node.after, node.before
            node.before = node.after = NOWHERE

    def due(self, now: float) -> Node[Value] | None:
        """A node of the earliest bucket whose time has passed, or None; it stays in until discarded."""
        ends = self._ends
        while ends and ends[0] <= now:
            bucket = self._buckets[ends[0]]
            if bucket.after is not bucket:
                return cast("Node[Value]", bucket.after)
            self._close(heappop(ends))
        return None

    def clear(self) -> None:
        """Forget all buckets, whose nodes are gone."""
        for end in self._ends:
            self._close(end)
        self._ends.clear()

    def _close(self, end: float) -> None:
        bucket = self._buckets.pop(end)
        bucket.older = bucket.newer = bucket.before = bucket.after = NOWHERE
