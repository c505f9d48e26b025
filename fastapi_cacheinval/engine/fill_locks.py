"""Fill locks on one event loop: claiming them, and waiting for those of other replicas.

A request that does not get a key's lock waits for a wake-up message, and polls in case the message is lost. It never
waits past its deadline, nor for L2 without a lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager
from contextvars import Context
from itertools import count
from typing import NamedTuple, Protocol

from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.engine.clocks import DoublingPause, ended, within
from fastapi_cacheinval.engine.fill_lock import FillLock, Own
from fastapi_cacheinval.errors import TierUnavailable
from fastapi_cacheinval.ports.clock import Clock
from fastapi_cacheinval.ports.l2_store import Found, L2Store, Lock

__all__ = ["Answered", "Chosen", "FillLock", "FillLocks", "Granted", "Led", "Own", "Refused", "Unavailable"]

logger = logging.getLogger("fastapi_cacheinval.l2")

_FIRST_LOOK = 0.05
_LONGEST_LOOK = 0.25


class Chosen(NamedTuple):
    """What a request selects in L2, if anything, the key that its forward locks, and the id of what was seen there."""

    stored: StoredResponse | None
    key: bytes
    seen: bytes


class Answered(NamedTuple):
    """Another replica's response answers; `waited` says that its forward was waited for."""

    stored: StoredResponse
    waited: bool


class Granted(NamedTuple):
    """The right to forward in the cluster; `stale` is what was found and is not good enough.

    `waited` says that another replica's forward was waited for.
    """

    fill_lock: FillLock
    stale: StoredResponse | None
    waited: bool = False


class Refused(NamedTuple):
    """The key's responses cannot be shared: everybody forwards. `stale` is as in `Granted`."""

    stale: StoredResponse | None


class Unavailable(NamedTuple):
    """Nothing could be had: the tier is `away`, or another replica forwards for longer than the deadline."""

    stale: StoredResponse | None
    away: bool


Led = Answered | Granted | Refused | Unavailable
"""What a forward that leads a key finds before it begins."""


class Find(Protocol):
    """Looks in L2; `waiting` says that another replica's forward is waited for."""

    async def __call__(self, *, waiting: bool) -> Chosen: ...


class FillLocks:
    """Claims fill locks on one event loop, waits for those of others, and lets go of all at the end.

    `bound` is seconds that a lock lives without being renewed; `open_` is whether the tier may be asked;
    `before_close` ends what else uses the store.
    """

    def __init__(
        self,
        store: L2Store,
        clock: Clock,
        own: Own,
        *,
        bound: float,
        open_: Callable[[], bool],
        before_close: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._clock = clock
        self._own = own
        self._bound = bound
        self._open = open_
        self._before_close = before_close
        self._owner = secrets.token_hex(8)
        self._numbers = count()
        self._waiting: dict[bytes, set[asyncio.Future[None]]] = {}
        self._listening: asyncio.Task[None] | None = None
        # Those that the server has not let go of yet.
        self._held: set[FillLock] = set()

    # -- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to hear of released locks, in no request's context."""
        self._listening = asyncio.get_running_loop().create_task(self._hear(), context=Context())

    async def close(self) -> None:
        """Let go of all locks, so that nobody waits for one that is left, and of the store; never raises."""
        listening, self._listening = self._listening, None
        if listening is not None:
            await ended((listening,))
        await self._close()

    async def _close(self) -> None:
        await self._before_close()
        with contextlib.suppress(TierUnavailable):
            for fill_lock in tuple(self._held):
                fill_lock.end()
                await fill_lock.release()
        await self._store.close()

    async def _hear(self) -> None:
        try:
            await self._listen()
        except asyncio.CancelledError:
            if self._listening is not None:
                # Its loop ends, and nobody has closed it before.
                await self._close()
            raise

    async def _listen(self) -> None:
        while True:
            try:
                async for key in self._store.woken():
                    for waking in self._waiting.get(key, ()):
                        if not waking.done():
                            waking.set_result(None)
            except TierUnavailable as error:
                logger.debug("the subscription ended: %s", error.reason)
            await asyncio.sleep(_LONGEST_LOOK)

    # -- leading --------------------------------------------------------------------------------

    async def lead(
        self,
        find: Find,
        deadline: float,
        wanted: Callable[[StoredResponse], bool],
        waits: Callable[[], AbstractContextManager[object]],
    ) -> Led:
        """Take what is `wanted` of what `find` gives, or the right to forward; raises `TierUnavailable`.

        `waits` is entered once another replica turns out to have the lock, and left at the end.
        """
        stored, key, seen = await find(waiting=False)
        if stored is not None and wanted(stored):
            return Answered(stored, waited=False)
        waited, look = False, DoublingPause(_FIRST_LOOK, _LONGEST_LOOK)
        owner = f"{self._owner}-{next(self._numbers)}"
        with contextlib.ExitStack() as waiting:
            while True:
                with self._expecting(key) as waking:
                    match await self._claimed(key, owner, seen):
                        case Lock.GOT:
                            return Granted(self._got(key, owner), stored, waited)
                        case Lock.REFUSED:
                            return Refused(stored)
                        case Lock.HELD:
                            left = deadline - self._clock.now()
                            if left <= 0 or not self._open():
                                return Unavailable(stored, away=False)
                            if not waited:
                                waited = True
                                waiting.enter_context(waits())
                            await within(self._clock, waking, min(look.take(), left))
                        case Found():
                            # Stored since it was looked for.
                            pass
                stored, key, seen = await find(waiting=waited)
                if stored is not None and wanted(stored):
                    return Answered(stored, waited)

    def _got(self, key: bytes, owner: str) -> FillLock:
        gone = self._held.discard
        fill_lock = FillLock(self._store, self._clock, self._own, key=key, owner=owner, bound=self._bound, gone=gone)
        self._held.add(fill_lock)
        return fill_lock

    async def _claimed(self, key: bytes, owner: str, seen: bytes) -> Found | Lock:
        try:
            return await self._store.claim(key, owner, self._bound, seen)
        except BaseException:
            # Whether it was given is not known, and others would wait for it as long as it lasts.
            self._own(self._given_back(key, owner))
            raise

    async def _given_back(self, key: bytes, owner: str) -> None:
        with contextlib.suppress(TierUnavailable):
            await self._store.release(key, owner)

    @contextlib.contextmanager
    def _expecting(self, key: bytes) -> Generator[asyncio.Future[None]]:
        """A future that ends when a key's lock is let go of."""
        waking: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, set()).add(waking)
        try:
            yield waking
        finally:
            waking.cancel()
            waiting = self._waiting[key]
            waiting.discard(waking)
            if not waiting:
                del self._waiting[key]
