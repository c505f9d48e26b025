"""Asking replicas for one car all the time, and keeping what they said and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx

from example_app.asking import PATIENCE, Answer, Asker

PAUSE = 0.002


@dataclass(frozen=True, slots=True)
class Sight:
    """One answer, the price in it, and when it was asked for and complete."""

    answer: Answer
    price: int | None
    ended: float


class Watch:
    """While the block runs each of these replicas is asked for the car, one request after the other."""

    def __init__(self, asker: Asker, path: str, names: Sequence[str], pause: float = PAUSE) -> None:
        self._asker = asker
        self._path = path
        self._pause = pause
        self.sights: dict[str, list[Sight]] = {name: [] for name in names}
        self.failed = 0
        self._begun = {name: asyncio.Event() for name in names}
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._ask(name)) for name in self.sights]
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(begun.wait() for begun in self._begun.values()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _ask(self, name: str) -> None:
        while True:
            try:
                answer = await self._asker.send("GET", self._path, at=name)
            except httpx.TransportError:
                self.failed += 1
            else:
                price = answer.body["price"] if answer.status == 200 else None
                self.sights[name].append(Sight(answer, price, time.perf_counter()))
                self._begun[name].set()
            await asyncio.sleep(self._pause)

    async def until(self, name: str, wanted: Callable[[Sight], bool]) -> Sight | None:
        """Wait for the first answer of a replica that is as wanted; None when patience ends."""
        give_up = time.monotonic() + PATIENCE
        seen = self.sights[name]
        looked = 0
        while time.monotonic() < give_up:
            for sight in seen[looked:]:
                if wanted(sight):
                    return sight
            looked = len(seen)
            await asyncio.sleep(PAUSE)
        return None

    async def until_price(self, name: str, price: int) -> Sight | None:
        """Wait until a replica shows the price."""
        return await self.until(name, lambda sight: sight.price == price)

    @property
    def count(self) -> int:
        """How many requests there were."""
        return self.failed + sum(map(len, self.sights.values()))

    @property
    def all_well(self) -> bool:
        """Whether every request was answered, with a car."""
        return not self.failed and all(sight.price is not None for seen in self.sights.values() for sight in seen)

    @property
    def slowest(self) -> float:
        """The milliseconds of the slowest answer."""
        return max(sight.answer.milliseconds for seen in self.sights.values() for sight in seen)

    def others_than(self, price: int, *, since: float, until: float, names: Sequence[str]) -> list[Sight]:
        """What these replicas answered with another price to requests that were made between two moments."""
        return [
            sight
            for name in names
            for sight in self.sights[name]
            if since < sight.answer.began < until and sight.price != price
        ]
