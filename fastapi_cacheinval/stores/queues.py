"""Who goes when there is no room: S3-FIFO, in bytes (Yang et al., SOSP 2023).

Newcomers queue in a small part of the store and move on to the main part only if they were asked
for there, so a crawl through keys that nobody asks for twice takes a twentieth of the store and no
more. The main part is a queue too: whoever was used since the last look goes to its end instead of
out. A key let go of from the small part is remembered, and enters the main part if it soon returns.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from fastapi_cacheinval.stores.ghosts import Ghosts
from fastapi_cacheinval.stores.rings import Node, Queue

__all__ = ["SMALL_SHARE", "Queues"]

Value = TypeVar("Value")

SMALL_SHARE = 20
"""The small part is one part in so many: with the paper's tenth, half a percent fewer requests hit."""

_MOST_USES = 3
# How far one eviction looks for what was not used, so that none takes long.
_MOST_STEPS = 64


def _oldest_but(newest: Node[Value], queue: Queue[Value]) -> Node[Value] | None:
    node = queue.oldest()
    if node is newest:
        queue.pull(newest)
        queue.push(newest)
        node = queue.oldest()
    return None if node is newest else node


class Queues(Generic[Value]):
    """The two queues of a store of `max_bytes` and the memory of who left."""

    __slots__ = ("_ghosts", "_main", "_small", "_small_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._small: Queue[Value] = Queue()
        self._main: Queue[Value] = Queue()
        self._ghosts = Ghosts()
        self._small_bytes = max_bytes // SMALL_SHARE

    @property
    def cost(self) -> int:
        """The sum of the nodes' costs in bytes."""
        return self._small.cost + self._main.cost

    @property
    def size_bytes(self) -> int:
        """Bytes of what is remembered of those who left."""
        return self._ghosts.size_bytes

    def admit(self, node: Node[Value], kept: int) -> None:
        """Let a new node queue; `kept` is how many there are."""
        known = self._ghosts.take(node.key, kept)
        (self._main if known else self._small).push(node)
        self._ghosts.hold(kept)

    def victim(self, now: float, newest: Node[Value]) -> Node[Value] | None:
        """The node that is worth least, still in its queue; None where only `newest` is left.

        The used ones that it looks at on the way move to the end of the main queue, 63 at most.
        """
        small, main = self._small, self._main
        steps = _MOST_STEPS
        while True:
            node = _oldest_but(newest, small)
            if node is None or small.cost <= self._small_bytes:
                node = _oldest_but(newest, main) or node
            if node is None or node.until <= now:
                return node
            steps -= 1
            if not node.uses or not steps:
                if node.queue is small:
                    self._ghosts.add(node.key)
                return node
            node.uses = min(node.uses, _MOST_USES) - 1 if node.queue is main else 0
            node.queue.pull(node)
            main.push(node)

    def forget(self) -> None:
        """Remember nobody."""
        self._ghosts.clear()
