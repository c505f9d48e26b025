"""Events of another program, which writes rows without the app: a queue that misbehaves, and the source that reads it.

An event is handed out again until it is known to be done, out of order and sometimes twice at once; sometimes it cannot
be read, the line that holds it is cut off, or the word that it is done is lost.
"""

from __future__ import annotations

import random
import time
from typing import NamedTuple

from chaos.authority import Rows
from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.sources import Change, Source

__all__ = ["Done", "Events", "RowEvents"]

# Seconds after which an event that was handed out is handed out again.
_HIDDEN = 0.3
_TROUBLE_SHARE = 0.1


class Done(NamedTuple):
    """When an event was known to be purged, and by which life of a replica."""

    at: float
    life: str


class Events:
    """The queue; `done` tells of each numbered event that it is purged."""

    def __init__(self, seed: str) -> None:
        self.done: dict[int, Done] = {}
        self._draw = random.Random(f"{seed} events")
        # By number: the row, and until when it is hidden.
        self._waiting: dict[int, tuple[int, float]] = {}

    def put(self, number: int, row: int) -> None:
        """The row has been written."""
        self._waiting[number] = row, 0.0

    def take(self) -> str:
        """A line with an event, in whatever state; an empty one where none waits."""
        now = time.monotonic()
        due = [number for number, (_, until) in self._waiting.items() if until <= now]
        if not due:
            return ""
        number = self._draw.choice(due)
        row, _ = self._waiting[number]
        self._waiting[number] = row, now + (0.0 if self._trouble() else _HIDDEN)
        return f"event {number} {'?' if self._trouble() else row}"

    def over(self, number: int, life: str) -> None:
        """The event is purged, says a life of a replica; sometimes nobody hears it."""
        if not self._trouble() and self._waiting.pop(number, None) is not None:
            self.done[number] = Done(time.monotonic(), life)

    def cuts(self) -> bool:
        """Whether to end a connection in the middle of a line."""
        return self._trouble()

    def _trouble(self) -> bool:
        return self._draw.random() < _TROUBLE_SHARE


class RowEvents(Source):
    """Takes the events of the queue behind the authority's socket, and has them purged."""

    def __init__(self, cache: HTTPCache, rows: Rows, life: str) -> None:
        async def unreadable(event: object, error: Exception) -> Change:
            return Change(everything=True)

        super().__init__(cache, "events", on_unreadable=unreadable)
        self._rows = rows
        self._life = life

    async def serve(self) -> None:
        while True:
            words = await self._rows.ask("take")
            self.well()
            if not words:
                await self.rest(0.05)
                continue
            self.count(received=1)
            outcome, error = await self.handle(words, _read)
            if error is not None and not outcome.over:
                raise error
            await self._rows.ask("over", words[1], self._life)
            self.count(done=1)


def _read(words: list[str]) -> object:
    if words[2] == "?":
        raise ValueError("nobody knows of which row it is")
    return [f"row:{words[2]}", "rows"]
