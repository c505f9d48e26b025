"""What happens in the cache, for whoever watches: bounded for each, and counted where it does not fit."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["MOST_EVENTS", "MOST_WATCHERS", "Feed", "FeedEvent", "Listening", "Watcher"]

MOST_EVENTS = 200
"""So many events wait for one watcher between two looks; older ones are dropped and counted."""

MOST_WATCHERS = 50
"""So many may watch at once."""

FeedEvent = dict[str, Any]
"""An event as the page is told of it."""


Listening = Callable[[Callable[[FeedEvent], None]], Callable[[], None]]
"""Begins to tell a function of events; what it gives ends that."""


class Watcher:
    """The events that wait for one open page. Any thread may add to it; one task takes them."""

    __slots__ = ("_events", "_put", "_taken")

    def __init__(self) -> None:
        self._events: deque[FeedEvent] = deque(maxlen=MOST_EVENTS)
        self._put = 0
        self._taken = 0

    def put(self, event: FeedEvent) -> None:
        """Add an event; the oldest makes room."""
        self._events.append(event)
        self._put += 1

    def take(self) -> tuple[list[FeedEvent], int]:
        """The events since the last time, and how many more there were that did not fit."""
        taken: list[FeedEvent] = []
        put, events = self._put, self._events
        while events and len(taken) < MOST_EVENTS:
            taken.append(events.popleft())
        dropped = max(0, put - self._taken - len(taken))
        self._taken += dropped + len(taken)
        return taken, dropped


class Feed:
    """Hands events on to every watcher; it listens to the cache only while there is one."""

    def __init__(self, begin: Listening) -> None:
        self._begin = begin
        self._end: Callable[[], None] | None = None
        self._watchers: tuple[Watcher, ...] = ()

    @property
    def full(self) -> bool:
        """Whether no further watcher is let in."""
        return len(self._watchers) >= MOST_WATCHERS

    @property
    def watchers(self) -> int:
        """How many watch."""
        return len(self._watchers)

    def join(self) -> Watcher:
        """A new watcher, until it leaves."""
        watcher = Watcher()
        self._watchers = (*self._watchers, watcher)
        if self._end is None:
            self._end = self._begin(self.tell)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """Take a watcher off; the last one ends the listening."""
        self._watchers = tuple(each for each in self._watchers if each is not watcher)
        if not self._watchers and self._end is not None:
            end, self._end = self._end, None
            end()

    def tell(self, event: FeedEvent) -> None:
        """Hand an event to every watcher."""
        for watcher in self._watchers:
            watcher.put(event)
