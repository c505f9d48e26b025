"""Which node goes next: one that is past use, or else the one that is worth least.

The worth is S3-FIFO, in bytes (Yang et al., SOSP 2023). Newcomers queue in a small part of the store and move on to
the main part only if they were asked for there, so a crawl through keys that nobody asks for twice takes a twentieth of
the store and no more. The main part is a queue too: whoever was used since the last look goes to its end instead of
out. A key let go of from the small part is remembered, and enters the main part if it soon returns.

Nodes hang in two rings, a queue and a bucket of one deadline. Rings are doubly linked through the nodes themselves:
taking one out costs no search, and no more bytes than its four links. Nothing that is kept links to a node that was let
go of, and it does not link to itself, so it is freed at once and not by a garbage collection.
"""

from __future__ import annotations

from array import array
from heapq import heappop, heappush
from math import ceil, frexp, inf, ldexp
from sys import getsizeof
from typing import Generic, TypeVar, cast

from fastapi_cacheinval.ports.store import Account, Target

__all__ = ["SMALL_SHARE", "Deadlines", "Ghosts", "Node", "Queues"]

Value = TypeVar("Value")

SMALL_SHARE = 20
"""The small part is one part in so many: with the paper's tenth, half a percent fewer requests hit."""

_MOST_USES = 3
# How far one eviction looks for what was not used, so that none takes long.
_MOST_STEPS = 64
# A bucket of deadlines with its slots in the dict and in the heap, and its float.
_BUCKET = 64 + 104 + 16 + 24
_FINEST = 0.125
# Of a ghost and of their table.
_LOW = 0xFFFF_FFFF
_FEWEST = 64


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


class Ghosts:
    """A lossy record of the last evictions: eight bytes each, in a table that overwrites.

    A slot holds 32 bits of the key's hash and the number of its eviction. Forgetting one, or taking a
    stranger for one (once in 2**32 / slots), costs a place in the wrong queue and nothing else.
    """

    __slots__ = ("_count", "_mask", "_slots")

    def __init__(self) -> None:
        self.clear()

    @property
    def size_bytes(self) -> int:
        """Bytes of the table."""
        return getsizeof(self._slots)

    def clear(self) -> None:
        """Forget all."""
        self._slots = array("Q", bytes(8 * _FEWEST))
        self._mask = _FEWEST - 1
        self._count = 0

    def add(self, key: bytes) -> None:
        """Remember that a key was let go of."""
        self._count = count = (self._count + 1) & _LOW
        mark = hash(key) & _LOW
        self._place(mark << 32 | count)

    def _place(self, slot: int) -> None:
        # In the older of two neighbours: with one place for each, keys used in turn would lose the same ones each time.
        slots, place, count = self._slots, slot >> 32 & self._mask, self._count
        if (count - slots[place]) & _LOW < (count - slots[place ^ 1]) & _LOW:
            place ^= 1
        slots[place] = slot

    def take(self, key: bytes, reach: int) -> bool:
        """Whether a key is among the last `reach` that were let go of; it is forgotten with the answer."""
        mark = hash(key) & _LOW
        place = mark & self._mask
        if self._slots[place] >> 32 != mark:
            place ^= 1
        slot = self._slots[place]
        if slot >> 32 != mark or not slot:
            return False
        self._slots[place] = 0
        return (self._count - slot) & _LOW < reach

    def hold(self, kept: int) -> None:
        """Make the table large enough for what goes with `kept` responses; amortised, it costs nothing."""
        if kept <= self._mask:
            return
        old = self._slots
        slots = 2 * len(old)
        while slots <= kept:
            slots *= 2
        self._mask = slots - 1
        self._slots = array("Q", bytes(8 * slots))
        for slot in old:
            if slot:
                self._place(slot)
