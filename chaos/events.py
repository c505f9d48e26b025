"""Events of another program, which writes rows without the app: a queue that misbehaves, and the source that reads it.

The queue delivers an event until its source reports it as done, out of order and sometimes twice at once. Sometimes an
event cannot be read, its line is cut off, or the report is lost.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import NamedTuple

from chaos.authority import Rows
from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.sources import Change, Source

__all__ = ["Done", "Events", "RowEvents"]

# Seconds from the delivery of an event until the next delivery.
_HIDDEN = 0.3
_TROUBLE_SHARE = 0.1


class Done(NamedTuple):
    """The time of the report that an event is purged, and the life of the replica that sent it."""

    at: float
    life: str


class Events:
    """The queue; `done` has the events that are purged, by number, `told` counts what it did wrong."""

    def __init__(self, seed: str) -> None:
        self.done: dict[int, Done] = {}
        self.told: Counter[str] = Counter()
        self._draw = random.Random(f"{seed} events")
        # By number: the row, and until when it is hidden.
        self._waiting: dict[int, tuple[int, float]] = {}

    def put(self, number: int, row: int) -> None:
        """Add the event of a written row."""
        self._waiting[number] = row, 0.0

    def take(self) -> str:
        """A line with an event, which may be unreadable; an empty line if no event is due."""
        now = time.monotonic()
        due = [number for number, (_, until) in self._waiting.items() if until <= now]
        if not due:
            return ""
        number = self._draw.choice(due)
        row, _ = self._waiting[number]
        self._waiting[number] = row, now + (0.0 if self._trouble("delivered twice") else _HIDDEN)
        return f"event {number} {'?' if self._trouble('unreadable') else row}"

    def over(self, number: int, life: str) -> None:
        """Take the report of a replica that the event is purged; sometimes the report is lost."""
        if not self._trouble("report lost") and self._waiting.pop(number, None) is not None:
            self.done[number] = Done(time.monotonic(), life)

    def cuts(self) -> bool:
        """Whether to cut this connection in the middle of a line."""
        return self._trouble("cut off")

    def _trouble(self, kind: str) -> bool:
        chosen = self._draw.random() < _TROUBLE_SHARE
        self.told[kind] += chosen
        return chosen


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
