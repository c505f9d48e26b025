"""Caches with a purger, adapters for the CDNs that the tests make, and what is waited for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fastapi_cacheinval import HTTPCache, SourceState
from fastapi_cacheinval.contrib.cdn import CDN, CDNPurger, Cloudflare, Fastly, Rate
from tests.contrib.cdn.fakes import TOKEN, Fake, FakeCloudflare, FakeFastly
from tests.helpers.fleet import eventually
from tests.servers import Valkey

FAST = Rate(10_000, 10_000)


def fastly(fake: Fake, **more: Any) -> Fastly:
    return Fastly(FakeFastly.service, TOKEN, api=fake.url, **{"rate": FAST, **more})


def cloudflare(fake: Fake, **more: Any) -> Cloudflare:
    return Cloudflare(FakeCloudflare.zone, TOKEN, api=fake.url + "/client/v4", **{"rate": FAST, **more})


BOTH = pytest.mark.parametrize(
    ("kind", "made"), [(FakeFastly, fastly), (FakeCloudflare, cloudflare)], ids=["fastly", "cloudflare"]
)


@asynccontextmanager
async def purging(
    cdn: CDN | list[CDN], *, clock: Any = None, bound: float = 2.0, server: Valkey | None = None, **options: Any
) -> AsyncIterator[tuple[HTTPCache, CDNPurger]]:
    """A cache, of this process without a `server`, with a purger that does not purge again unless it is told to."""
    settings: dict[str, Any] = {"staleness_bound": bound, "clock": clock}
    cache = HTTPCache(**settings) if server is None else HTTPCache.from_url(server.url, **settings)
    purger = CDNPurger(cache, cdn, **{"again_after": 0, **options})
    cache.attach(purger)
    await cache.start()
    try:
        yield cache, purger
    finally:
        await cache.stop()


def state_of(cache: HTTPCache) -> SourceState:
    state = cache.statistics().sources["cdn"]
    assert isinstance(state, SourceState)
    return state


async def confirmed(fake: Fake, count: int) -> None:
    await eventually(lambda: len(fake.keys) >= count, f"{count} keys at the CDN")


async def ticking(clock: Any, condition: Callable[[], object], what: str) -> None:
    """Wait for a condition while the time of the cache flies."""

    def look() -> object:
        clock.tick(1)
        return condition()

    await eventually(look, what)
