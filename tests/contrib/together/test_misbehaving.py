"""A source and a CDN that misbehave in every way they know, at once: no event is lost, and none counts before its time."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.cdn import CDNPurger
from fastapi_cacheinval.sources import Change, Source, UnreadableEvent
from fastapi_cacheinval.testing import FakeClock, capture_invalidations
from tests.contrib.cdn.fakes import FakeFastly, serving
from tests.contrib.cdn.purging import fastly, ticking

pytestmark = pytest.mark.anyio

FAULTS = ("500", "503", "408", "empty", "text", "some", "half", "html")


class Moody(Source):
    """Hands out what is not acknowledged again; fails to connect, to read, and reads half, as it likes."""

    def __init__(self, cache: HTTPCache, draw: random.Random, **options: Any) -> None:
        super().__init__(cache, "moody", **options)
        self.draw = draw
        self.waiting = [f"event-{number}" for number in range(40)]
        self.over: list[str] = []

    async def serve(self) -> None:
        while self.waiting:
            if self.draw.random() < 0.1:
                raise self.draw.choice([ConnectionError("gone"), asyncio.CancelledError(), RuntimeError("confused")])
            event = self.draw.choice(self.waiting)
            outcome, _ = await self.handle(event, self.read)
            if outcome.over:
                self.waiting.remove(event)
                self.over.append(event)
                self.well()
        await self.rest(10**9)

    def read(self, event: str) -> Any:
        match self.draw.randrange(6):
            case 0:
                raise TimeoutError("where schemas are kept is away")
            case 1:
                raise ValueError(event)
            case 2:
                raise UnreadableEvent("half of it is not known", Change((event,)))
            case 3:
                return event
            case _:
                return [event]


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_lost(seed: int) -> None:
    """Each event is purged here, confirmed by the CDN as its documentation says, and only then forgotten."""
    draw = random.Random(seed)
    clock = FakeClock()
    cache = HTTPCache(clock=clock)
    with serving(FakeFastly()) as fake:
        fake.faults.extend(draw.choices(FAULTS, k=30))
        purger = CDNPurger(cache, fastly(fake), again_after=0)
        early: list[str] = []

        async def unreadable(event: str, error: Exception) -> Change:
            if draw.random() < 0.3:
                raise RuntimeError("the handler fails as well")
            return Change((event,))

        source = Moody(cache, draw, then=purger.purge, on_unreadable=unreadable)
        cache.attach(purger)
        cache.attach(source)
        with capture_invalidations(cache) as receipts:
            async with cache:

                def over() -> bool:
                    early.extend(event for event in source.over if event not in fake.keys)
                    return not source.waiting

                await ticking(clock, over, "the last event")
    events = {f"event-{number}" for number in range(40)}
    assert early == []
    assert set(source.over) == events
    assert {tag for receipt in receipts for tag in receipt.tags} == events
    assert set(fake.keys) == events
