"""The life of one cache: its start and its stop on each event loop that it is used on.

The rules: callers at the same time share one start; a start that serves waits, for a bounded time, for the first word
from the log; after a failed start the next caller tries again; a loop that was closed is forgotten.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, MutableMapping
from contextvars import Context
from typing import Any

from fastapi_cacheinval.core.replica import Replica
from fastapi_cacheinval.engine.listeners import Listeners
from fastapi_cacheinval.engine.runtime import Runtime, Runtimes
from fastapi_cacheinval.engine.sources import Sources
from fastapi_cacheinval.errors import ConfigurationError
from fastapi_cacheinval.ports.bus import Bus

__all__ = ["Lifecycle"]

logger = logging.getLogger("fastapi_cacheinval.cache")


class _Step:
    """A start or an end under way: who leads it, and when it is over."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._leader = asyncio.current_task()
        self._ended: asyncio.Future[None] = loop.create_future()
        self._error: Exception | None = None

    @property
    def mine(self) -> bool:
        """Whether it waits for the caller itself, as for a source that uses the cache when it is entered or left."""
        return self._leader is asyncio.current_task()

    def end(self, error: BaseException | None) -> None:
        self._error = error if isinstance(error, Exception) else None
        if not self._ended.done():
            self._ended.set_result(None)

    async def wait(self, patience: float | None = None) -> None:
        """Wait until it is over; raises what it raised, and nothing where its leader was cancelled."""
        await asyncio.wait((self._ended,), timeout=patience)
        if self._error is not None:
            raise self._error


class Lifecycle:
    """Starts and stops a cache.

    `open_runtime` makes the loop-bound half, `open_l2` gives that its L2, where there is one. `patience` is
    seconds that purges under way get at the stop.
    """

    def __init__(
        self,
        runtimes: Runtimes,
        replica: Replica,
        bus: Bus,
        sources: Sources,
        listeners: Listeners,
        *,
        open_runtime: Callable[[Context], Runtime],
        open_l2: Callable[[Runtime], None],
        patience: float,
    ) -> None:
        self._runtimes = runtimes
        self._replica = replica
        self._bus = bus
        self._sources = sources
        self._listeners = listeners
        self._open_runtime = open_runtime
        self._open_l2 = open_l2
        self._patience = patience
        # How many purges have been said to be lost.
        self._lost = 0
        self._starts: dict[asyncio.AbstractEventLoop, _Step] = {}
        # How many `async with` blocks are open on each loop; a stop inside one leaves it open.
        self._blocks: dict[asyncio.AbstractEventLoop, int] = {}
        # The loops whose sources are being left.
        self._leaving: dict[asyncio.AbstractEventLoop, _Step] = {}
        self._by_loop: tuple[MutableMapping[asyncio.AbstractEventLoop, Any], ...] = (
            self._runtimes,
            self._starts,
            self._blocks,
            self._leaving,
        )

    async def start(self, context: Context, *, serving: bool) -> Runtime:
        """Start on the running loop, where that has not been done; background work runs in copies of the context.

        `serving` takes a lease and waits for the log; without it purges can be made, and nothing is waited for. Raises
        what an attached source raises, and `ConfigurationError` where the loop is none of asyncio's.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError as error:
            raise ConfigurationError(
                "The cache needs asyncio, and no loop of asyncio runs here. Run the server with asyncio or uvloop, as "
                "hypercorn does without `-k trio`, and start the cache inside of it."
            ) from error
        leaving = self._leaving.get(loop)
        if leaving is not None and not leaving.mine:
            # What runs there is about to end. Not for ever: a source may wait for the very task that asks.
            await leaving.wait(self._patience)
        while True:
            runtime, under_way = self._runtimes.get(loop), self._starts.get(loop)
            if runtime is not None and (runtime.serving or not serving):
                return runtime
            if under_way is None:
                return await self._lead(loop, runtime, context, serving=serving)
            if under_way.mine and runtime is not None:
                return runtime
            await under_way.wait()

    async def _lead(
        self, loop: asyncio.AbstractEventLoop, runtime: Runtime | None, context: Context, *, serving: bool
    ) -> Runtime:
        # In the caller's own task: sources may be entered in none but that which leaves them.
        start = self._starts[loop] = _Step(loop)
        error: BaseException | None = None
        try:
            return await self._begin(loop, runtime, context, serving=serving)
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._starts.pop(loop, None)
            start.end(error)

    async def _begin(
        self, loop: asyncio.AbstractEventLoop, runtime: Runtime | None, context: Context, *, serving: bool
    ) -> Runtime:
        begun = runtime
        if begun is None:
            self._forget_closed()
            begun = self._runtimes[loop] = self._open_runtime(context)
        try:
            await self._bus.start(self._replica, serving=serving)
            if runtime is None:
                await self._sources.enter()
        except BaseException:
            if runtime is None:
                self._runtimes.pop(loop, None)
            raise
        if serving:
            self._open_l2(begun)
            begun.serving = True
        return begun

    def _forget_closed(self) -> None:
        # Other threads may start and stop on their own loops meanwhile.
        for table in self._by_loop:
            for other in list(table):
                if other.is_closed():
                    table.pop(other, None)

    def forked(self) -> object:
        """Forget the parent's loops, in a forked process; returns what must not be collected."""
        kept = [dict(table) for table in self._by_loop]
        for table in self._by_loop:
            table.clear()
        return kept

    async def wind_down(self) -> None:
        """Do on the running loop what can be done before the end, while those who record it are still there.

        Refreshes are cancelled and none begins any more, purges under way and queued ones get a while. What is purged
        until `stop` is written as ever.
        """
        runtime = self._runtimes.get(asyncio.get_running_loop())
        if runtime is None:
            return
        await runtime.wind_down(self._patience)
        self._lost = await self._bus.flush()
        self._tell_lost(self._lost)

    @staticmethod
    def _tell_lost(lost: int) -> None:
        if lost:
            logger.error(
                "stopped with %d purge(s) that could not be written to the log: what they name is served by other "
                "replicas until its lifetime ends. Purge it again, or everything: cacheinval clear",
                lost,
            )

    async def stop(self) -> None:
        """End on the running loop: refreshes are cancelled, purges under way get one last while."""
        loop = asyncio.get_running_loop()
        if loop not in self._runtimes:
            return
        leaving = self._leaving.setdefault(loop, _Step(loop))
        try:
            # Before the rest: what they still have in hand they purge through it.
            await self._sources.leave()
        finally:
            # Whatever a source raises, and whoever gives up waiting for it.
            runtime = self._runtimes.pop(loop, None)
            self._leaving.pop(loop, None)
            leaving.end(None)
            await self._end(runtime)

    async def _end(self, runtime: Runtime | None) -> None:
        if runtime is None:
            return
        undone = await runtime.close(self._patience)
        if undone:
            logger.error(
                "stopped with %d purge(s) or listener(s) unfinished after %g s (staleness_bound): what they purge may "
                "be served until its lifetime ends",
                undone,
                self._patience,
            )
        # Who has started anew meanwhile goes on with the same link to the log.
        begun = runtime.loop in self._runtimes
        lost = 0 if begun else await self._bus.stop()
        await self._listeners.told()
        # Said already, unless more has come since.
        told, self._lost = self._lost, 0
        if lost > told:
            self._tell_lost(lost)

    async def serve(self, context: Context) -> Runtime:
        """Start for requests on the running loop, until `stop`, or until the last of the blocks that are open there."""
        runtime = await self.start(context, serving=True)
        if not self._blocks.get(runtime.loop):
            runtime.pinned = True
        return runtime

    async def enter(self, context: Context) -> None:
        """One more `async with` block that needs it on the running loop."""
        runtime = await self.start(context, serving=False)
        self._blocks[runtime.loop] = self._blocks.get(runtime.loop, 0) + 1

    async def leave(self) -> None:
        """One block less; the last one stops it, unless it ran before them or an app's lifespan began inside."""
        loop = asyncio.get_running_loop()
        left = self._blocks.pop(loop, 0) - 1
        if left > 0:
            self._blocks[loop] = left
            return
        runtime = self._runtimes.get(loop)
        # A block inside an app that runs, or that starts, must not take the cache from under it.
        if runtime is not None and not runtime.pinned and loop not in self._starts:
            await self.stop()
