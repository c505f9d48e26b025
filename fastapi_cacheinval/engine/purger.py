"""Purges that are made on this replica: written to the log, counted, traced, and told to who listens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any

from fastapi_cacheinval.core.checks import Wait, seconds, waits
from fastapi_cacheinval.core.events import Receipt
from fastapi_cacheinval.core.replica import LogEntry, Replica
from fastapi_cacheinval.core.tag_limits import for_one_purge
from fastapi_cacheinval.engine.clocks import paused
from fastapi_cacheinval.engine.listeners import Listeners
from fastapi_cacheinval.engine.runtime import Runtimes, runtime_here
from fastapi_cacheinval.errors import CacheNotRunning, PurgeNotDelivered
from fastapi_cacheinval.ports.bus import Bus
from fastapi_cacheinval.ports.clock import Clock
from fastapi_cacheinval.ports.log import Proposal
from fastapi_cacheinval.ports.tracing import Carrier, Tracing

__all__ = ["Purger"]

logger = logging.getLogger("fastapi_cacheinval.cache")

_LOOK_AGAIN = 0.05


class Purger:
    """Makes purges of tags in normal form, reserved ones included.

    `attach` has the log of one process know the replica; it is None where replicas share the log.
    """

    def __init__(
        self,
        replica: Replica,
        clock: Clock,
        bus: Bus,
        runtimes: Runtimes,
        listeners: Listeners,
        tracing: Tracing,
        attach: Callable[[Replica], None] | None,
    ) -> None:
        self._replica = replica
        self._clock = clock
        self._bus = bus
        self._runtimes = runtimes
        self._listeners = listeners
        self._tracing = tracing
        self._attach = attach
        # Whether each purge asks every replica to say at once that it has applied it.
        self.prompt = False
        self._onward: list[Purger] = []

    def pass_on_to(self, other: Purger) -> None:
        """Have another cache make each purge as well, from now on: it keeps what this one's app answers."""
        if other not in self._onward and not other.leads_to(self):
            self._onward.append(other)

    def leads_to(self, other: Purger) -> bool:
        """Whether a purge made here is made by the other as well."""
        return self is other or any(each.leads_to(other) for each in self._onward)

    async def purge(
        self, tags: tuple[str, ...], *, soft: bool, wait: Wait = None, causes: Carrier = (), by: str = ""
    ) -> Receipt:
        """Write one purge, and tell the listeners; raises `PurgeNotDelivered`, or `ReplicasUnknown` where it waits.

        `by` is who makes it, in words, for the feed. Of more tags than `core.tag_limits` allows it becomes one of
        everything.
        """
        try:
            return await self._purge(tags, soft=soft, wait=wait, causes=causes, by=by)
        finally:
            for other in self._onward:
                await other.purge(tags, soft=soft, wait=wait, causes=causes, by=by)

    async def _purge(
        self, tags: tuple[str, ...], *, soft: bool, wait: Wait = None, causes: Carrier = (), by: str = ""
    ) -> Receipt:
        for_all = waits(wait)
        tags = for_one_purge(tags)
        began = self._clock.now()
        if not tags:
            return Receipt(self._replica.term.number, self._replica.applied, (), soft)
        if self._attach is not None:
            self._attach(self._replica)
        try:
            with self._tracing.span("cacheinval.invalidate", root=True, links=causes) as span:
                span.note("cacheinval.soft", soft)
                prompt = self.prompt or for_all
                line = await self._bus.publish(Proposal(tags, soft, span.carrier, prompt=prompt))
                span.note("cacheinval.seq", line.seq)
                span.note("cacheinval.term", line.term.number)
        except PurgeNotDelivered:
            self._listeners.queued(tags, soft=soft)
            raise
        receipt = self._listeners.published(line, by)
        try:
            if for_all:
                receipt = await self._barrier(receipt, line, span.trace, began)
        finally:
            # Also where it is not known who has applied it: it has its number.
            await self._listeners.tell(receipt)
        return receipt

    async def deliver(self, tags: tuple[str, ...], *, soft: bool, causes: Carrier) -> Receipt:
        """`purge` that returns only with a number; raises `CacheNotRunning` without a start, or once it stops."""
        while True:
            runtime_here(self._runtimes)
            try:
                return await self.purge(tags, soft=soft, causes=causes)
            except PurgeNotDelivered:
                # It is fenced here and queued; what is queued has no receipt, and is purged once more for one.
                await paused(self._clock, _LOOK_AGAIN)
                while not self._bus.state().connected:
                    runtime_here(self._runtimes)
                    await paused(self._clock, _LOOK_AGAIN)

    async def applied_everywhere(self, receipt: Receipt) -> Receipt:
        """Wait until every replica in touch has applied a purge; raises `ReplicasUnknown`."""
        began = self._clock.now()
        replica = self._replica
        same = replica.term.number == receipt.term
        # A later term began with everything given up: who has come as far as this replica has given up that as well.
        line = LogEntry(replica.term, receipt.seq if same else replica.applied, "", (), receipt.soft, 0.0)
        return await self._barrier(receipt, line, "", began)

    async def _barrier(self, receipt: Receipt, line: LogEntry, purge: str, began: float) -> Receipt:
        """Wait for every replica; the receipt with that. `purge` is the `traceparent` of what is waited for."""
        with self._tracing.span("cacheinval.barrier", parent=purge) as span:
            replicas, reason = await self._bus.applied_by_all(line)
            span.note("cacheinval.replicas", replicas)
        return replace(receipt, replicas=replicas, seconds=self._clock.now() - began, reason=reason)

    @property
    def local(self) -> bool:
        """Whether all that it writes to is in this process."""
        return self._attach is not None and all(other.local for other in self._onward)

    def in_thread(self, work: Callable[[], Coroutine[Any, Any, Receipt]], timeout: float) -> Receipt:
        """Make a purge for a thread without a loop: on a loop that runs the cache, or else on one of its own.

        The log of one process needs no loop, and for one that stands still nobody waits.
        """
        deadline = time.monotonic() + seconds(timeout, "timeout")
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            raise CacheNotRunning("invalidate_sync() would block the event loop: await cache.invalidate() there.")
        running = [each for loop, each in list(self._runtimes.items()) if loop.is_running()]
        for runtime in () if self.local else running:
            receipt = runtime.for_threads.do(work, deadline)
            if receipt is not None:
                return receipt
        # Without a loop that runs nothing would go on past a deadline.
        return asyncio.run(_until(deadline if running else None, work))

    def soon(self, named: Callable[[], Awaitable[tuple[str, ...]]], fenced: tuple[str, ...], *, soft: bool) -> None:
        """Make a purge of what is `named` in a task; `fenced` is obeyed here at once. Raises `CacheNotRunning`."""
        runtime = runtime_here(self._runtimes)
        runtime.own(self._purge_soon(named, None if soft else self._replica.fence(fenced), soft=soft))
        for other in self._onward:
            other.soon(named, fenced, soft=soft)

    async def _purge_soon(
        self, named: Callable[[], Awaitable[tuple[str, ...]]], fence: int | None, *, soft: bool
    ) -> None:
        try:
            await self._purge(await named(), soft=soft)
        except PurgeNotDelivered as error:
            logger.warning("%s", error)
        finally:
            if fence is not None:
                self._replica.lift(fence)


async def _until(deadline: float | None, work: Callable[[], Coroutine[Any, Any, Receipt]]) -> Receipt:
    """What the work gives; raises `TimeoutError` past a deadline in seconds of `time.monotonic()`."""
    async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
        return await work()
