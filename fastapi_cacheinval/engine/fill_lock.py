"""One fill lock: the right to forward a key in the cluster, renewed while the fill runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi_cacheinval.errors import TierUnavailable
from fastapi_cacheinval.ports.clock import Alarm, Clock
from fastapi_cacheinval.ports.l2_store import L2Store

__all__ = ["HIT_FOR_MISS_MS", "FillLock", "Own"]

HIT_FOR_MISS_MS = 5_000
"""For how long nobody waits for a key whose response could not be shared."""

_FAILED_MS = 1_000

Own = Callable[[Coroutine[Any, Any, None]], object]
"""Runs work that outlives its request."""


class FillLock:
    """One fill lock. It renews itself until one of the calls below lets go of it; later calls change nothing.

    If the replica dies, the lock stays for at most `bound` seconds. `own` runs work beside the request. `gone` is
    called once the server has let go of the lock, or cannot be told to.
    """

    def __init__(
        self,
        store: L2Store,
        clock: Clock,
        own: Own,
        *,
        key: bytes,
        owner: str,
        bound: float,
        gone: Callable[[FillLock], None],
    ) -> None:
        self.key = key
        self.owner = owner
        self._store = store
        self._clock = clock
        self._own = own
        self._bound = bound
        self._gone = gone
        self._ended = False
        self._alarm: Alarm = clock.call_later(bound / 3, self._renew)

    def __repr__(self) -> str:
        return f"<FillLock {self.key.hex()[:8]} {'ended' if self._ended else 'held'}>"

    def _renew(self) -> None:
        if not self._ended:
            self._alarm = self._clock.call_later(self._bound / 3, self._renew)
            self._own(self._renewed())

    async def _renewed(self) -> None:
        try:
            kept = await self._store.renew(self.key, self.owner, self._bound)
        except TierUnavailable:
            return
        if not kept:
            # Another replica may forward by now, which costs a forward and nothing else.
            self._alarm.cancel()

    def end(self) -> bool:
        """Stop renewing. True for the first caller, which must then release the lock."""
        if self._ended:
            return False
        self._ended = True
        self._alarm.cancel()
        return True

    def free(self) -> None:
        """Let the next one forward."""
        self._release(0)

    def refuse(self) -> None:
        """What came could not be shared: let all forward, for a while."""
        self._release(HIT_FOR_MISS_MS)

    def fail(self) -> None:
        """Two leaders failed: let all who wait forward at once."""
        self._release(_FAILED_MS)

    def _release(self, refused_ms: int) -> None:
        if self.end():
            self._own(self._released(refused_ms))

    async def _released(self, refused_ms: int) -> None:
        with contextlib.suppress(TierUnavailable):
            # Else it ends by itself.
            await self.release(refused_ms=refused_ms)

    async def release(self, *, data: bytes = b"", life_ms: int = 0, refused_ms: int = 0) -> None:
        """Have the server let go of it, and store what the fill gave; for who was told True by `end()`.

        Raises `TierUnavailable`.
        """
        try:
            await self._store.release(self.key, self.owner, data=data, life_ms=life_ms, refused_ms=refused_ms)
        except TierUnavailable:
            self._gone(self)
            raise
        self._gone(self)
