"""The port of L1: what keeps stored responses inside the process."""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeVar

__all__ = ["Account", "LocalStore", "StoreStatistics", "Target"]

Value = TypeVar("Value")

Target = tuple[object, ...]


class StoreStatistics(NamedTuple):
    """What a store holds now and what it has let go since it was made.

    `size_bytes` counts bodies, headers, keys, tags, aliases and bookkeeping.
    """

    responses: int
    aliases: int
    size_bytes: int
    max_bytes: int
    evicted_for_room: int
    reclaimed: int


class Account(Protocol):
    """Whom what is kept counts to; the store writes into it."""

    responses: int
    size_bytes: int


class LocalStore(Protocol[Value]):
    """A bounded mapping of cache key to value, with aliases by which the front lookup finds a value.

    Times are seconds of the cache's own clock and come in as arguments. Reads may come from any
    thread and take no lock; writes may come from any thread. No call awaits, and none raises.
    """

    def get(self, key: bytes) -> Value | None:
        """The value of a key, counted as a use of it; None where there is none."""
        ...

    def peek(self, key: bytes) -> Value | None:
        """The value of a key, which does not count as a use."""
        ...

    def at(self, target: Target) -> Value | None:
        """The value that an alias leads to, counted as a use of it. This is the hot path."""
        ...

    def put(
        self, key: bytes, value: Value, weight: int, until: float, now: float, account: Account | None = None
    ) -> bool:
        """Keep a value of `weight` bytes until it is past use, in place of the key's last one.

        It counts to `account` for as long as it is kept. Aliases of the key lead to the new value from
        then on. False where the value is larger than the store may ever hold, and then the key's last
        value is gone too.
        """
        ...

    def alias(self, target: Target, key: bytes) -> None:
        """Let a target lead to a key's value for as long as that is kept; a bounded number per key."""
        ...

    def remove(self, key: bytes) -> None:
        """Let go of a key's value and its aliases."""
        ...

    def clear(self) -> None:
        """Let go of everything."""
        ...

    def statistics(self) -> StoreStatistics:
        """What it holds now."""
        ...
