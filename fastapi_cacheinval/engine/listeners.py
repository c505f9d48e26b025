"""Who hears of the purges that are made on this replica."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi_cacheinval.core.receipt import Receipt
from fastapi_cacheinval.engine.log_once import LogOnce

__all__ = ["Listener", "Listeners", "Observer"]

logger = logging.getLogger("fastapi_cacheinval.cache")

Listener = Callable[[Receipt], Awaitable[None]]
Observer = Callable[[Receipt], object]


class Listeners:
    """Tells observers at once and listeners in a task; a listener that raises is logged, and the next one is told."""

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self.observers: list[Observer] = []
        self._log_once = LogOnce()

    def remove_listener(self, listener: Listener) -> None:
        """Take a listener off; harmless when it is not on."""
        with contextlib.suppress(ValueError):
            self.listeners.remove(listener)

    def remove_observer(self, observer: Observer) -> None:
        """Take an observer off; harmless when it is not on."""
        with contextlib.suppress(ValueError):
            self.observers.remove(observer)

    def tell(self, receipt: Receipt) -> Coroutine[Any, Any, None] | None:
        """Tell the observers; what tells the listeners has to be run, and is None where there are none."""
        for observer in tuple(self.observers):
            observer(receipt)
        listeners = tuple(self.listeners)
        return _tell(listeners, receipt, self._log_once) if listeners else None


async def _tell(listeners: tuple[Listener, ...], receipt: Receipt, log_once: LogOnce) -> None:
    for listener in listeners:
        try:
            await listener(receipt)
        except Exception:
            level = log_once.level(listener)
            logger.log(level, "a purge listener failed: %r", listener, exc_info=True)
        else:
            log_once.well(listener)
