"""Freshness: ttl with jitter, and XFetch's early refresh from the measured fill time."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from math import exp
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_cacheinval import cached
from fastapi_cacheinval.core.decide import early_refresh_due
from fastapi_cacheinval.core.storing import jittered
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.http import Shop, settle

pytestmark = pytest.mark.anyio


def shop_with(fill: float = 0.0, **policy: Any) -> Shop:
    """An app with one cached route whose handler takes so many seconds of the cache's clock."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(**policy)])
    async def read() -> int:
        shop.clock.tick(fill)
        return shop.count()

    return shop


@pytest.mark.parametrize("ttl", [0.5, 60, timedelta(days=2), timedelta(milliseconds=1500)])
async def test_a_response_is_fresh_for_its_ttl_and_no_longer(ttl: Any) -> None:
    """Two days are not zero, nor is half a second."""
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    shop = shop_with(ttl=ttl)
    await shop.ask()
    shop.clock.tick(seconds - 0.01)
    assert_hit(await shop.ask())
    shop.clock.tick(0.01)
    assert (await shop.ask()).body == b"2"


async def test_jitter_only_shortens() -> None:
    """The lifetime is ttl times a draw from [1 - jitter, 1]: ten at once do not all end at once."""
    shop = shop_with(ttl=100, jitter=0.1)
    lifetimes = []
    chance = random.Random(7)
    shop.cache._core.engine.draw = chance.random
    for _ in range(200):
        await shop.cache.clear()
        answer = await shop.ask()
        assert answer.cache is not None
        assert answer.cache.ttl is not None
        lifetimes.append(answer.cache.ttl)
    assert min(lifetimes) >= 90
    assert max(lifetimes) <= 100
    assert len(set(lifetimes)) >= 9


@given(
    ttl=st.floats(0, 1e9),
    jitter=st.floats(0, 1),
    draw=st.floats(0, 1, exclude_max=True),
    other=st.floats(0, 1, exclude_max=True),
)
@settings(max_examples=100)
def test_a_jittered_lifetime_stays_within_its_bounds(ttl: float, jitter: float, draw: float, other: float) -> None:
    """Between (1 - jitter) ttl and ttl, and falling with the draw."""
    life = jittered(ttl, jitter, draw)
    assert ttl * (1 - jitter) - 1e-6 * ttl <= life <= ttl
    assert (draw <= other) <= (life >= jittered(ttl, jitter, other))


async def test_jitter_zero_is_exact() -> None:
    """It can be switched off."""
    shop = shop_with(ttl=100, jitter=0)
    shop.cache._core.engine.draw = lambda: 0.999
    answer = await shop.ask()
    assert answer.cache is not None
    assert answer.cache.ttl == 100


async def test_an_early_refresh_runs_in_the_background_and_the_request_is_a_hit() -> None:
    """Drawn unluckily near the end, a fresh response is served and refreshed; the next one is new."""
    shop = shop_with(ttl=60, fill=2.0)
    await shop.ask()
    shop.clock.tick(55)
    shop.cache._core.engine.draw = lambda: 1 - exp(-5)
    hit = await shop.ask()
    assert_hit(hit)
    assert hit.body == b"1"
    await shop.refreshed()
    shop.cache._core.engine.draw = lambda: 0.0
    fresh = await shop.ask()
    assert_hit(fresh)
    assert fresh.body == b"2"
    assert shop.calls == 2


async def test_an_early_refresh_can_be_switched_off() -> None:
    """early_refresh=0: whatever is drawn, nothing is refreshed before its end."""
    shop = shop_with(ttl=60, fill=2.0, early_refresh=0)
    await shop.ask()
    shop.cache._core.engine.draw = lambda: 1 - 2**-53
    shop.clock.tick(59.9)
    assert_hit(await shop.ask())
    await settle()
    assert shop.calls == 1


@pytest.mark.parametrize(("left", "beta"), [(1.0, 1.0), (4.0, 1.0), (4.0, 3.0), (20.0, 1.0)])
async def test_early_refreshes_are_as_frequent_as_xfetch_says(left: float, beta: float) -> None:
    """With a fill of 2 s, a request `left` seconds before the end is unlucky with probability exp(-left / (2 beta))."""
    shop = shop_with(ttl=60, fill=2.0, early_refresh=beta)
    await shop.ask()
    shop.clock.tick(60 - left)
    chance = random.Random(11)
    shop.cache._core.engine.draw = chance.random
    ordered: list[Any] = []
    runtime = shop.cache._core.runtime
    runtime.refresh = lambda key, *work, **_: ordered.append(key)  # type: ignore[method-assign, assignment]
    asked = 2000
    for _ in range(asked):
        assert_hit(await shop.ask())
        for key in ordered[-1:]:
            flight = runtime.flights.under_way(key)
            if flight is not None:
                flight.refuse()
                runtime.flights.unmark(key)
    expected = exp(-left / (2.0 * beta))
    deviation = (expected * (1 - expected) / asked) ** 0.5
    assert abs(len(ordered) / asked - expected) <= 4 * deviation + 0.5 / asked


@given(
    fill=st.floats(0, 1e4), beta=st.floats(0, 100), draw=st.floats(0, 1, exclude_max=True), left=st.floats(1e-6, 1e6)
)
@settings(max_examples=100)
def test_an_early_refresh_is_the_likelier_the_nearer_the_end(
    fill: float, beta: float, draw: float, left: float
) -> None:
    """What is due at one moment is due at every later one; a free fill is never refreshed early."""
    due = early_refresh_due(0.0, left, fill, beta, draw)
    if due:
        assert early_refresh_due(left / 2, left, fill, beta, draw)
    assert not early_refresh_due(0.0, left, 0.0, beta, draw)


async def test_a_hot_key_that_expires_is_filled_once_per_expiry() -> None:
    """Under constant requests, with SWR, each expiry costs one handler call and no request waits."""
    shop = Shop()
    gate = asyncio.Event()

    @shop.app.get("/", dependencies=[cached(ttl=10, stale_while_revalidate=100, jitter=0)])
    async def read() -> int:
        number = shop.count()
        if number > 1:
            await gate.wait()
        return number

    await shop.ask()
    for expiry in range(1, 4):
        shop.clock.tick(10)
        gate.clear()
        for _ in range(20):
            answer = await shop.ask()
            assert answer.body == b"%d" % expiry
        assert shop.calls == expiry + 1
        gate.set()
        await shop.refreshed(expiry)
        assert (await shop.ask()).body == b"%d" % (expiry + 1)
