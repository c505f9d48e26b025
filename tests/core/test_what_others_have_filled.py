"""Keeping what another replica has filled beside what this one has."""

from __future__ import annotations

import pytest

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.testing import FakeClock

pytestmark = pytest.mark.anyio


def response(cache: HTTPCache, age: float) -> StoredResponse:
    """A fresh response of that age, which carries the tag `it`."""
    now = cache.clock.now()
    return StoredResponse(
        key=b"k" * 32,
        status=200,
        headers=(),
        body=b"",
        etag=None,
        last_modified=None,
        tags=("it",),
        vary=(),
        stamp=cache._core.engine.replica.stamp(now),
        created=now - age,
        fresh_until=now + 60,
        early_refresh_from=now + 60,
        fill_seconds=0.1,
        early_refresh=0.0,
        stale_while_revalidate=0.0,
        stale_if_error=0.0,
        must_revalidate=False,
        anonymous=False,
    )


async def test_an_older_response_of_another_replica_does_not_take_the_place_of_a_newer_one() -> None:
    """What is found in L2 is kept, but never instead of something newer that is still of use."""
    cache = HTTPCache(clock=FakeClock())
    async with cache:
        newer, older = response(cache, 1.0), response(cache, 5.0)
        cache._core.engine.put(newer, cache.clock.now())
        cache._core.engine.put(older, cache.clock.now())
        assert cache._core.engine.store.get(newer.key) is newer
        await cache.invalidate("it")
        after = response(cache, 5.0)
        cache._core.engine.put(after, cache.clock.now())
        assert cache._core.engine.store.get(newer.key) is after
