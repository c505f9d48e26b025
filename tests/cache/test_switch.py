"""The kill switch: every request is forwarded, every purge is still published."""

from __future__ import annotations

import pytest

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.testing import FakeClock, assert_hit, assert_miss, capture_invalidations
from tests.helpers.life import client_of, counting_app

pytestmark = pytest.mark.anyio


async def test_off_forwards_every_request_and_stores_nothing() -> None:
    """`enabled=False`: each GET runs the handler, says why, and leaves nothing behind."""
    cache = HTTPCache(enabled=False)
    app, counted = counting_app(cache)
    async with client_of(app) as client:
        for expected in (1, 2, 3):
            answer = await client.get("/it")
            assert answer.json() == expected
            assert "detail=disabled" in answer.headers["cache-status"]
            assert "etag" not in answer.headers
    assert counted.calls == 3
    assert not cache.statistics().enabled
    assert cache.statistics().responses == 0
    await cache.stop()


async def test_off_still_publishes_every_purge() -> None:
    """Mutations and calls by hand are numbered, and say so, as when it is on."""
    cache = HTTPCache(enabled=False)
    app, _ = counting_app(cache)
    async with client_of(app) as client:
        with capture_invalidations(cache) as purges:
            answer = await client.put("/it")
            await cache.invalidate("by-hand")
    assert answer.headers["cacheinval-purge"] == "done"
    assert [purge.tags for purge in purges] == [("it",), ("by-hand",)]
    await cache.stop()


async def test_switched_off_and_on_at_run_time() -> None:
    """Off in the middle: not even the front lookup answers. On again: what was purged meanwhile stays purged."""
    cache = HTTPCache()
    app, counted = counting_app(cache)
    async with client_of(app) as client:
        await client.get("/it")
        assert_hit(await client.get("/it"))
        cache.enabled = False
        assert (await client.get("/it")).json() == 2
        cache.enabled = True
        kept = await client.get("/it")
        assert_hit(kept)
        assert kept.json() == 1
        cache.enabled = False
        await client.put("/it")
        cache.enabled = True
        again = await client.get("/it")
        assert_miss(again)
        assert again.json() == 3
    assert counted.calls == 3
    await cache.stop()


async def test_a_response_that_went_stale_while_off_is_not_served_as_fresh() -> None:
    """Lifetimes go on while the switch is off."""
    clock = FakeClock()
    cache = HTTPCache(clock=clock)
    app, _ = counting_app(cache)
    async with client_of(app) as client:
        await client.get("/it")
        cache.enabled = False
        clock.tick(61)
        cache.enabled = True
        assert_miss(await client.get("/it"))
    await cache.stop()


@pytest.mark.parametrize("value", ["0", "false", "No", " OFF "])
def test_the_environment_switches_it_off(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`CACHEINVAL_ENABLED` wins over `enabled=True`, whichever way it is written; it can be switched on at run time."""
    monkeypatch.setenv("CACHEINVAL_ENABLED", value)
    cache = HTTPCache(enabled=True)
    assert not cache.enabled
    assert " off " in repr(cache)
    assert not HTTPCache.from_url("memory://").enabled
    cache.enabled = True
    assert cache.statistics().enabled


@pytest.mark.parametrize("value", ["1", "true", "yes", "", "on"])
def test_other_values_of_the_environment_leave_it_as_it_is_made(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not say off says nothing: the argument counts."""
    monkeypatch.setenv("CACHEINVAL_ENABLED", value)
    assert HTTPCache().enabled
    assert not HTTPCache(enabled=False).enabled
