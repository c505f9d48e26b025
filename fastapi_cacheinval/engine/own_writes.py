"""The pending and the failed writes of one event loop into L2: meanwhile it reads nothing older there.

A newer response may have other tags than the one in L2. Until it is written there, a purge of the new tags would leave
the old response in use. So nobody here reads a key whose write is pending or has failed.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any

from fastapi_cacheinval.errors import TierUnavailable

__all__ = ["OwnWrites"]

_MOST_FAILED = 10_000


class OwnWrites:
    """The keys that are being written, and the last ten thousand whose writing failed; `drop` lets go of one in L2.

    `drop` may raise `TierUnavailable`.
    """

    def __init__(self, drop: Callable[[bytes], Awaitable[None]]) -> None:
        self._drop = drop
        self._under_way: dict[bytes, asyncio.Event] = {}
        self._failed: OrderedDict[bytes, None] = OrderedDict()

    def run(self, work: Coroutine[Any, Any, bool], *keys: bytes) -> Coroutine[Any, Any, None]:
        """Wrap `work` so that readers of these keys wait for its end. `work` returns whether the write succeeded."""
        over = asyncio.Event()
        self._under_way.update(dict.fromkeys(keys, over))
        return self._run(work, keys, over)

    async def _run(self, work: Coroutine[Any, Any, bool], keys: tuple[bytes, ...], over: asyncio.Event) -> None:
        done = False
        try:
            done = await work
            if not done:
                with suppress(TierUnavailable):
                    for key in keys:
                        await self._drop(key)
                    done = True
        finally:
            if not done:
                self.failed(keys)
            for key in keys:
                if self._under_way.get(key) is over:
                    del self._under_way[key]
            over.set()

    def failed(self, keys: Iterable[bytes]) -> None:
        """What stands under these keys is older than what is known here."""
        for key in keys:
            self._failed[key] = None
            self._failed.move_to_end(key)
        while len(self._failed) > _MOST_FAILED:
            self._failed.popitem(last=False)

    async def settle(self, key: bytes) -> None:
        """Before a key is read: wait for what is being written, and let go of what could not be replaced.

        Raises `TierUnavailable`.
        """
        while (over := self._under_way.get(key)) is not None:
            await over.wait()
        if key in self._failed:
            await self._drop(key)
            self._failed.pop(key, None)
