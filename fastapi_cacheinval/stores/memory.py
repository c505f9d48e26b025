"""L1 in this process: bounded in bytes, resistant to scans, each response with its own life.

Reads take no lock. They look up one dict, add one to a node's uses and read its value, each a single
step of the interpreter; two threads may lose a use to each other, never a value.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from math import inf
from sys import getsizeof
from threading import Lock
from typing import Any, Generic, TypeVar

from fastapi_cacheinval.ports.store import Account, StoreStatistics, Target
from fastapi_cacheinval.stores.order import SMALL_SHARE, Deadlines, Node, Queues

__all__ = ["MAX_ALIASES", "NODE_BYTES", "MemoryStore"]

Value = TypeVar("Value")

MAX_ALIASES = 8
"""How many targets may lead to one key; the oldest makes room."""

NODE_BYTES = getsizeof(Node(b"", None, 0, inf)) + getsizeof(1 << 30) + getsizeof(0.0)
"""What the store adds to a value's weight and its key: a node, its cost as a number, its deadline."""

_MOST_RECLAIMS = 8  # by one put that needs no room
_EMPTY = 4096  # the store itself and its empty tables
# Parts of nearly every target of the front lookup: one object each, counted as nothing.
_WORDS = {word: word for word in ("", "GET", "HEAD", "http", "https")}


def _shared(target: Target) -> Target:
    """The same target with one object for each common word in it."""
    return tuple([_WORDS.get(part, part) if isinstance(part, str) else part for part in target])


def _bytes_of(targets: tuple[Target, ...]) -> int:
    """Bytes that a node's targets take, without their slots in the table of aliases."""
    if not targets:
        return 0
    size = getsizeof(targets)
    for target in targets:
        size += getsizeof(target)
        for part in target:
            # One object serves all empty bytes, and the numbers in a target are small.
            if (isinstance(part, bytes) and part) or (isinstance(part, str) and _WORDS.get(part) is not part):
                size += getsizeof(part)
    return size


def _worn(table: dict[Any, Any]) -> bool:
    """Whether a dict holds on to far more slots than it uses: one made or grown has at most 120 bytes for each key."""
    return getsizeof(table) > 160 * len(table) + _EMPTY


def _book(node: Node[Any], account: Account | None) -> None:
    node.account = account
    if account is not None:
        account.responses += 1
        account.size_bytes += node.cost


def _unbook(node: Node[Any]) -> None:
    account = node.account
    if account is not None:
        account.responses -= 1
        account.size_bytes -= node.cost


class MemoryStore(Generic[Value]):
    """A `LocalStore` that holds at most `max_bytes`, its own bookkeeping included.

    The caller's `weight` is what the value takes without its cache key, which the store keeps and
    counts. `beside` gives how many things of `beside_bytes` each belong to the same limit and are kept elsewhere: they
    take its room, up to half of it. Raises `ValueError` for a limit under 16 KiB.
    """

    __slots__ = (
        "_aliases",
        "_beside",
        "_beside_bytes",
        "_deadlines",
        "_evicted",
        "_lock",
        "_max_bytes",
        "_nodes",
        "_queues",
        "_reclaimed",
    )

    def __init__(self, max_bytes: int, *, beside: Callable[[], int] | None = None, beside_bytes: int = 1) -> None:
        if max_bytes < 4 * _EMPTY:
            raise ValueError(f"max_bytes must be at least {4 * _EMPTY}, not {max_bytes}.")
        self._max_bytes = max_bytes
        self._beside = beside
        self._beside_bytes = beside_bytes
        self._lock = Lock()
        self._nodes: dict[bytes, Node[Value]] = {}
        self._aliases: dict[Target, Node[Value]] = {}
        self._queues: Queues[Value] = Queues(max_bytes)
        self._deadlines: Deadlines[Value] = Deadlines()
        self._evicted = 0
        self._reclaimed = 0

    def __repr__(self) -> str:
        return f"<MemoryStore {len(self._nodes)} responses, {self._size()} of {self._max_bytes} B>"

    # -- reads: no lock -------------------------------------------------------------------------

    def get(self, key: bytes) -> Value | None:
        """The value of a key, counted as a use of it; None where there is none."""
        node = self._nodes.get(key)
        if node is None:
            return None
        node.uses += 1
        return node.value

    def peek(self, key: bytes) -> Value | None:
        """The value of a key, which does not count as a use of it."""
        node = self._nodes.get(key)
        return None if node is None else node.value

    def at(self, target: Target) -> Value | None:
        """The value that an alias leads to, counted as a use of it."""
        node = self._aliases.get(target)
        if node is None:
            return None
        node.uses += 1
        return node.value

    # -- writes ---------------------------------------------------------------------------------

    def put(
        self, key: bytes, value: Value, weight: int, until: float, now: float, account: Account | None = None
    ) -> bool:
        """Keep a value of `weight` bytes until it is past use, in place of the key's last one; it counts to `account`.

        Lets go of up to eight responses that are past use, more only where their room is needed.
        False where the value is larger than the store may ever hold.
        """
        with self._lock:
            self._reclaim(now)
            node = self._nodes.get(key)
            cost = weight + NODE_BYTES + getsizeof(key)
            if cost + 2 * _EMPTY > self._max_bytes:
                if node is not None:
                    self._drop(node)
                return False
            if node is None:
                node = self._nodes[key] = Node(key, value, cost, until)
                self._queues.admit(node, len(self._nodes))
                _book(node, account)
            else:
                _unbook(node)
                # The table keeps the first of two equal keys; the new value holds the other.
                second = 0 if key is node.key else getsizeof(key)
                node.queue.recost(node, cost + second + _bytes_of(node.targets))
                _book(node, account)
                node.value = value
                node.until = until
                self._deadlines.discard(node)
            self._deadlines.add(node, now)
            self._make_room(now, node)
            return self._nodes.get(key) is node

    def alias(self, target: Target, key: bytes) -> None:
        """Let a target lead to a key's value for as long as that is kept.

        At most eight do, and the oldest makes room. A target that alone takes more than a twentieth
        of the store is not kept.
        """
        target = _shared(target)
        if _bytes_of((target,)) * SMALL_SHARE > self._max_bytes:
            return
        with self._lock:
            node = self._nodes.get(key)
            other = self._aliases.get(target)
            if node is None or other is node:
                return
            if other is not None:
                self._lead(other, tuple([kept for kept in other.targets if kept != target]))
                del self._aliases[target]
            targets = node.targets
            if len(targets) >= MAX_ALIASES:
                del self._aliases[targets[0]]
                targets = targets[1:]
            self._lead(node, (*targets, target))
            self._aliases[target] = node
            self._make_room(-inf, node)

    def remove(self, key: bytes) -> None:
        """Let go of a key's value and its aliases."""
        with self._lock:
            node = self._nodes.get(key)
            if node is not None:
                self._drop(node)

    def clear(self) -> None:
        """Let go of everything, also of what is remembered of keys that are gone."""
        with self._lock:
            for node in list(self._nodes.values()):
                self._drop(node)
            self._deadlines.clear()
            self._queues.forget()
            self._tighten()

    def nodes(self, most: int) -> list[Node[Value]]:
        """At most so many of what is kept now, what has been kept longest first; for a look at them bit by bit.

        Looking at a node is no use of it. One that is let go of meanwhile stays readable.
        """
        with self._lock:
            return list(islice(self._nodes.values(), most))

    def statistics(self) -> StoreStatistics:
        """What it holds now."""
        with self._lock:
            return StoreStatistics(
                responses=len(self._nodes),
                aliases=len(self._aliases),
                size_bytes=self._size(),
                max_bytes=self._max_bytes,
                evicted_for_room=self._evicted,
                reclaimed=self._reclaimed,
            )

    # -- under the lock -------------------------------------------------------------------------

    def _size(self) -> int:
        return self._queues.cost + self._overhead()

    def _overhead(self) -> int:
        tables = getsizeof(self._nodes) + getsizeof(self._aliases)
        beside = 0 if self._beside is None else min(self._beside() * self._beside_bytes, self._max_bytes // 2)
        return _EMPTY + tables + self._queues.size_bytes + self._deadlines.size_bytes + beside

    def _lead(self, node: Node[Value], targets: tuple[Target, ...]) -> None:
        more = _bytes_of(targets) - _bytes_of(node.targets)
        node.queue.recost(node, node.cost + more)
        if node.account is not None:
            node.account.size_bytes += more
        node.targets = targets

    def _drop(self, node: Node[Value]) -> None:
        for target in node.targets:
            del self._aliases[target]
        del self._nodes[node.key]
        _unbook(node)
        node.queue.pull(node)
        self._deadlines.discard(node)

    def _reclaim(self, now: float) -> None:
        for _ in range(_MOST_RECLAIMS):
            node = self._deadlines.due(now)
            if node is None:
                return
            self._drop(node)
            self._reclaimed += 1

    def _make_room(self, now: float, newest: Node[Value]) -> None:
        """Let go of others until what is held fits; of `newest` only where nothing else is left."""
        room = self._max_bytes - self._overhead()
        if self._queues.cost <= room:
            return
        if _worn(self._nodes) or _worn(self._aliases):
            self._tighten()
            room = self._max_bytes - self._overhead()
        while self._queues.cost > room:
            node = self._deadlines.due(now)
            if node is None or node is newest:
                node = self._queues.victim(now, newest)
            if node is None:
                # Alone, and the tables of those that went are what is too large.
                self._queues.forget()
                self._tighten()
                if self._size() > self._max_bytes:
                    self._drop(newest)
                return
            self._drop(node)
            if node.until <= now:
                self._reclaimed += 1
            else:
                self._evicted += 1

    def _tighten(self) -> None:
        """Make tables anew that fit what is left; a reader still in the old one finds what was true before."""
        self._nodes = {key: node for key, node in self._nodes.items()}  # noqa: C416 - dict() would copy the free slots
        self._aliases = {target: node for target, node in self._aliases.items()}  # noqa: C416
