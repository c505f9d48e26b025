"""What belongs to one event loop: the forwards under way, background refreshes, and tasks that outlive a request."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, MutableMapping
from contextvars import Context
from typing import Any

from fastapi_cacheinval.core.back_off import NOBODY, BackOff, backed_off, may_try
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.engine.caller_context import with_values_of
from fastapi_cacheinval.engine.clocks import within
from fastapi_cacheinval.engine.flights import Flights
from fastapi_cacheinval.engine.for_threads import ForThreads
from fastapi_cacheinval.engine.l2 import L2Tier
from fastapi_cacheinval.engine.log_once import LogOnce
from fastapi_cacheinval.errors import CacheNotRunning
from fastapi_cacheinval.ports.clock import Clock

__all__ = ["Runtime", "Runtimes", "loop_here", "runtime_here"]

_MOST_PAUSES = 10_000
# Pauses of clients' forwards are others than those of refreshes, which a refusal begins as well.
_FORWARD = b"forward "
# Real seconds that a cancelled refresh has to clean up after itself.
_LAST_WORD = 1.0


class Runtime:
    """The loop-bound half of a cache; made at start, ended at stop, rebuilt for another loop.

    Background tasks run in copies of `context`, not in that of the request that caused them.
    """

    def __init__(
        self,
        clock: Clock,
        context: Context,
        *,
        collapse_timeout: float,
        most_refreshes: int,
        refresh_timeout: float,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.for_threads = ForThreads(self.loop, self.own)
        self.flights = Flights(clock, collapse_timeout)
        self.l2: L2Tier | None = None
        self._clock = clock
        self._context = context
        self._most_refreshes = most_refreshes
        self._refresh_timeout = refresh_timeout
        self._refreshes: dict[bytes, asyncio.Task[None]] = {}
        self._back_offs: OrderedDict[bytes, BackOff] = OrderedDict()
        self.log_once = LogOnce()
        self._owned: set[asyncio.Task[Any]] = set()
        self.closing = False
        # Whether its start is over, and it may answer requests.
        self.serving = False
        # Whether it runs until `stop()`, whatever `async with` blocks end.
        self.pinned = False

    @property
    def waiting(self) -> int:
        """How many requests wait for another's forward, here or on another replica."""
        return self.flights.waiting + (0 if self.l2 is None else self.l2.waiting)

    @property
    def refreshing(self) -> int:
        """How many refreshes run."""
        return len(self._refreshes)

    def own(self, work: Coroutine[Any, Any, Any], context: Context | None = None) -> asyncio.Task[Any]:
        """Run work that must not end with the request that began it; in a context where somebody waits for it."""
        task = self.loop.create_task(work, context=self._context.copy() if context is None else context)
        self._owned.add(task)
        task.add_done_callback(self._owned.discard)
        return task

    def may_refresh(self, key: bytes, stored: StoredResponse | None = None, caller: bytes = NOBODY) -> bool:
        """Whether a refresh of this key could begin now: none runs, there is room, and none of `stored` just failed.

        `caller` is whose request it would repeat.
        """
        return (
            not self.closing
            and key not in self._refreshes
            and len(self._refreshes) < self._most_refreshes
            and (stored is None or may_try(self._back_offs.get(key), stored, self._clock.now(), caller))
        )

    def renewed(self, key: bytes) -> None:
        """A refresh has renewed what is stored under a key: the next one is not held back."""
        self._back_offs.pop(key, None)

    def back_off(self, key: bytes, stored: StoredResponse, retry_after: float | None, caller: bytes) -> None:
        """A refresh could not renew a response: hold the next one back, the caller's for `retry_after` seconds."""
        before, now = self._back_offs.get(key), self._clock.now()
        self._back_offs[key] = backed_off(before, stored, now, retry_after, caller)
        self._back_offs.move_to_end(key)
        if len(self._back_offs) > _MOST_PAUSES:
            self._back_offs.popitem(last=False)

    def forward_failed(self, stored: StoredResponse, retry_after: float | None) -> None:
        """A client's forward failed and a stale response stood in for it: answer with that for a while, as a pause.

        `retry_after` is in seconds; what one caller alone was told is not for the others.
        """
        self.back_off(_FORWARD + stored.key, stored, retry_after if stored.anonymous else None, NOBODY)

    def forwards_pause(self, stored: StoredResponse) -> bool:
        """Whether a forward in place of this stale response failed a moment ago."""
        back_off = self._back_offs.get(_FORWARD + stored.key)
        return back_off is not None and not may_try(back_off, stored, self._clock.now(), NOBODY)

    def refresh(
        self,
        key: bytes,
        work: Callable[[], Coroutine[Any, Any, str]],
        done: Callable[[str], None],
        cut: Callable[[str], None] = lambda _: None,
        *,
        caller: Context | None = None,
    ) -> asyncio.Task[None]:
        """Run one background refresh; `work` gives its outcome, `done` is told it.

        `cut` is told why before `work` is cancelled: `timeout`, or `cancelled` with all others. `work` logs its errors.
        `caller` is the context of the request that is repeated.
        """
        context = self._context.copy() if caller is None else with_values_of(caller, self._context)
        task = self.loop.create_task(self._run(key, work, done, cut), context=context)
        self._refreshes[key] = task
        task.add_done_callback(lambda _: self._never_began(key, task, done))
        return task

    def _never_began(self, key: bytes, task: asyncio.Task[None], done: Callable[[str], None]) -> None:
        # Cancelled before its first step: nothing of it has run that could have said so.
        if self._refreshes.get(key) is task:
            del self._refreshes[key]
            done("cancelled")

    async def _run(
        self,
        key: bytes,
        work: Callable[[], Coroutine[Any, Any, str]],
        done: Callable[[str], None],
        cut: Callable[[str], None],
    ) -> None:
        outcome = "failed"
        inner = self.loop.create_task(work())
        try:
            in_time = await within(self._clock, inner, self._refresh_timeout)
            outcome = inner.result() if in_time else "timeout"
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except Exception:  # noqa: BLE001, S110  # `work` has logged it, and there is no client to tell
            pass
        finally:
            self._refreshes.pop(key, None)
            if not inner.done():
                cut(outcome)
                inner.cancel()
                await asyncio.wait((inner,), timeout=_LAST_WORD)
            done(outcome)

    async def wind_down(self, patience: float) -> list[asyncio.Task[Any]]:
        """Cancel the refreshes, for good, and give owned work a while; what of it is left undone."""
        self.closing = True
        refreshes = list(self._refreshes.values())
        for task in refreshes:
            task.cancel()
        if refreshes:
            await asyncio.wait(refreshes)
        deadline = self.loop.time() + patience
        # What ends may leave more behind it: a purge, the listeners that hear of it.
        while (owned := [task for task in self._owned if not task.done()]) and self.loop.time() < deadline:
            await asyncio.wait(owned, timeout=deadline - self.loop.time())
        return owned

    async def close(self, patience: float) -> int:
        """End; how many pieces of owned work were left undone after a last while."""
        owned = await self.wind_down(patience)
        for task in owned:
            task.cancel()
        if self.l2 is not None:
            await self.l2.close()
        return len(owned)


Runtimes = MutableMapping[asyncio.AbstractEventLoop, Runtime]
"""The loop-bound half of a cache for each loop on which it has been started, or is about to be."""


def loop_here() -> asyncio.AbstractEventLoop | None:
    """The running loop; None where none runs in this thread."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def runtime_here(runtimes: Runtimes) -> Runtime:
    """The loop-bound half for the running loop; raises `CacheNotRunning` where there is none."""
    loop = loop_here()
    runtime = None if loop is None else runtimes.get(loop)
    if runtime is None:
        raise CacheNotRunning(
            "The cache has not been started on this event loop: use `async with cache:` or the middleware."
        )
    return runtime
