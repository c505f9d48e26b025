"""The port of L2: what replicas store for each other, and the right to forward a key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import Enum
from typing import NamedTuple, Protocol

__all__ = ["ID_BYTES", "Found", "L2Store", "Lock"]

ID_BYTES = 8
"""What is stored begins with so many bytes that its writer drew at random."""


class Found(NamedTuple):
    """What is stored under a key, and how much longer, in milliseconds of the store's own clock."""

    data: bytes
    pttl_ms: int


class Lock(Enum):
    """What became of asking for a fill lock."""

    GOT = "this replica forwards"
    HELD = "another replica forwards"
    REFUSED = "what the key answers could not be shared a moment ago"


class L2Store(Protocol):
    """Bytes by cache key, each with an end, and one fill lock for each key, as one event loop reaches them.

    Every call that waits is bounded in time and one round trip, and raises `TierUnavailable`, and nothing else, where
    the store cannot be reached or refuses.
    """

    async def read(self, key: bytes) -> Found | None:
        """What is stored under a key."""
        ...

    async def write(self, key: bytes, data: bytes, life_ms: int) -> None:
        """Store for so many milliseconds, in place of what is there; without any data nothing is there then."""
        ...

    async def claim(self, key: bytes, owner: str, seconds: float, seen: bytes) -> Found | Lock:
        """Take the fill lock for so long, unless there is by now something else under the key than what was `seen`.

        Who is told `HELD` is woken when the lock is released.
        """
        ...

    async def renew(self, key: bytes, owner: str, seconds: float) -> bool:
        """Hold the fill lock for so long from now; False where it is lost."""
        ...

    async def release(
        self, key: bytes, owner: str, *, data: bytes = b"", life_ms: int = 0, refused_ms: int = 0
    ) -> None:
        """Store what the fill gave, let go of the lock, and wake who waits; for `refused_ms` nobody gets it then."""
        ...

    def woken(self) -> AsyncIterator[bytes]:
        """Keys whose locks are released while somebody waits; ends by raising."""
        ...

    async def close(self) -> None:
        """Let go of connections; never raises."""
        ...
