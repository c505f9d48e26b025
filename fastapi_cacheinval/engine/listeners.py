"""Who hears of the purges that are made on this replica."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from fastapi_cacheinval.core.receipt import Receipt, receipt_of
from fastapi_cacheinval.core.replica import LogEntry
from fastapi_cacheinval.engine.decisions import Feed
from fastapi_cacheinval.engine.log_once import LogOnce
from fastapi_cacheinval.engine.runtime import Runtimes
from fastapi_cacheinval.ports.telemetry import Telemetry

__all__ = ["Listener", "Listeners", "Observer"]

logger = logging.getLogger("fastapi_cacheinval.cache")

Listener = Callable[[Receipt], Awaitable[None]]
Observer = Callable[[Receipt], object]


class Listeners:
    """Tells observers at once and listeners in a task; a listener that raises is logged, and the next one is told."""

    def __init__(self, runtimes: Runtimes, telemetry: Telemetry, feed: Feed) -> None:
        self.listeners: list[Listener] = []
        self.observers: list[Observer] = []
        self._runtimes = runtimes
        self._telemetry = telemetry
        self._feed = feed
        self._last_words: list[asyncio.Future[None]] = []
        self._log_once = LogOnce()

    def remove_listener(self, listener: Listener) -> None:
        """Take a listener off; harmless when it is not on."""
        with contextlib.suppress(ValueError):
            self.listeners.remove(listener)

    def remove_observer(self, observer: Observer) -> None:
        """Take an observer off; harmless when it is not on."""
        with contextlib.suppress(ValueError):
            self.observers.remove(observer)

    def published(self, line: LogEntry, by: str = "") -> Receipt:
        """Count a purge of this replica that has its number, and tell the feed who made it; its receipt."""
        self._telemetry.purged("published", len(line.tags), soft=line.soft)
        self._feed.purged(line, own=True, by=by)
        return receipt_of(line)

    async def tell(self, receipt: Receipt) -> None:
        """Tell all; where the cache runs on this loop, the listeners are told in a task."""
        self._observed(receipt)
        listeners = tuple(self.listeners)
        if not listeners:
            return
        runtime = self._runtimes.get(asyncio.get_running_loop())
        if runtime is None:
            # Nothing here would wait for a task.
            await self._each(listeners, receipt)
        else:
            runtime.own(self._each(listeners, receipt))

    def numbered(self, line: LogEntry) -> None:
        """Tell all of a purge that had been queued."""
        receipt = self.published(line)
        self._observed(receipt)
        listeners = tuple(self.listeners)
        if not listeners:
            return
        runtime = self._runtimes.get(asyncio.get_running_loop())
        if runtime is None:
            # The last purges of a cache that stops.
            self._last_words.append(asyncio.ensure_future(self._each(listeners, receipt)))
        else:
            runtime.own(self._each(listeners, receipt))

    async def told(self) -> None:
        """Wait until the listeners have heard of the last purges of a cache that stops."""
        words, self._last_words = self._last_words, []
        await asyncio.gather(*words)

    def _observed(self, receipt: Receipt) -> None:
        for observer in tuple(self.observers):
            observer(receipt)

    async def _each(self, listeners: tuple[Listener, ...], receipt: Receipt) -> None:
        for listener in listeners:
            try:
                await listener(receipt)
            except Exception:
                level = self._log_once.level(listener)
                logger.log(level, "a purge listener failed: %r", listener, exc_info=True)
            else:
                self._log_once.well(listener)
