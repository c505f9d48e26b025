"""What a cache does for those who watch it: the part of `HTTPCache` that counts, and tells what happens."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from fastapi_cacheinval.core.checks import called
from fastapi_cacheinval.core.statistics import Statistics
from fastapi_cacheinval.engine.internals import Internals
from fastapi_cacheinval.engine.listeners import Listener, Observer, Subscriber
from fastapi_cacheinval.ports.tracing import OpenSpan

__all__ = ["OfWatchers"]


class OfWatchers:
    """The methods that change nothing of what is answered."""

    _core: Internals

    def statistics(self) -> Statistics:
        """A snapshot: what is kept, what was answered, and how the replica stands to the log."""
        return self._core.statistics(by_route=True)

    def add_listener(self, listener: Listener) -> None:
        """Have an async function hear every purge made on this replica, once it has its number."""
        self._core.listeners.listeners.append(called(listener, "listener"))

    def remove_listener(self, listener: Listener) -> None:
        """Take a listener off again; harmless when it is not on."""
        self._core.listeners.remove_listener(listener)

    def add_observer(self, observer: Observer) -> None:
        """Have a plain function hear every purge made on this replica, before the purge returns; it must not raise."""
        self._core.listeners.observers.append(called(observer, "observer"))

    def remove_observer(self, observer: Observer) -> None:
        """Take an observer off again; harmless when it is not on."""
        self._core.listeners.remove_observer(observer)

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Have a plain function hear what happens as it happens: each `Decision`, purge, reset and loss of the log.

        It is called on the thread where that happens, before the answer begins, so it has to be quick; what it raises
        is logged. Call what is returned to end it. While somebody has subscribed, front hits take longer.
        """
        return self._core.feed.subscribe(callback)

    def span(self, name: str) -> AbstractContextManager[OpenSpan]:
        """A span of an integration around a block, below the current one or by itself; none where nobody records."""
        return self._core.tracing.span(name, root=True)
