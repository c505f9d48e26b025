"""What a store keeps of one key, and the two rings that each such node hangs in.

Rings are doubly linked through the nodes themselves: taking one out costs no search, and no more
bytes than its four links. Nothing that is kept links to a node that was let go of, and it does not
link to itself, so it is freed at once and not by a garbage collection.
"""

from __future__ import annotations

from typing import Generic, TypeVar, cast

from fastapi_cacheinval.ports.store import Account, Target

__all__ = ["NOWHERE", "Links", "Node", "Queue"]

Value = TypeVar("Value")


class Links:
    """The neighbours in a queue and in a bucket of deadlines; a ring's own end is one of these too."""

    __slots__ = ("after", "before", "newer", "older")

    older: Links
    newer: Links
    before: Links
    after: Links

    def __init__(self) -> None:
        self.older = self.newer = self.before = self.after = self


# The neighbour of what is in no bucket. A link to itself would keep the node alive until a garbage collection.
NOWHERE = Links()


class Node(Links, Generic[Value]):
    """What is kept of one key: its value, its cost in bytes and whom that counts to, its uses, its aliases."""

    __slots__ = ("account", "cost", "key", "queue", "targets", "until", "uses", "value")

    queue: Queue[Value]

    def __init__(self, key: bytes, value: Value, cost: int, until: float) -> None:
        self.key = key
        self.value = value
        self.cost = cost
        self.until = until
        self.uses = 0
        self.account: Account | None = None
        self.targets: tuple[Target, ...] = ()
        self.older = self.newer = self.before = self.after = NOWHERE


class Queue(Links, Generic[Value]):
    """A first-in, first-out queue of nodes that knows the sum of their costs."""

    __slots__ = ("cost",)

    def __init__(self) -> None:
        super().__init__()
        self.cost = 0

    def push(self, node: Node[Value]) -> None:
        """Add a node that is in no queue."""
        newest = self.older
        node.older, node.newer = newest, self
        newest.newer = self.older = node
        node.queue = self
        self.cost += node.cost

    def pull(self, node: Node[Value]) -> None:
        """Take out a node of this queue, from wherever it is."""
        node.older.newer, node.newer.older = node.newer, node.older
        self.cost -= node.cost

    def recost(self, node: Node[Value], cost: int) -> None:
        """Change the cost of a node of this queue."""
        self.cost += cost - node.cost
        node.cost = cost

    def oldest(self) -> Node[Value] | None:
        """The next to go, or None."""
        node = self.newer
        return None if node is self else cast("Node[Value]", node)
