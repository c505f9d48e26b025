"""`statistics().routes`: what each route did, in a running app."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from fastapi import HTTPException

from fastapi_cacheinval import RouteStatistics, cached
from tests.helpers.http import Call, Shop, ask, lifespan_of, scope_of, until

pytestmark = pytest.mark.anyio


def shop_of(**options: Any) -> Shop:
    """Two cached routes, one of which takes a second each time, and one that fails on demand."""
    shop = Shop(**options)

    @shop.app.get("/products/{number}", dependencies=[cached(ttl=60, stale_while_revalidate=60)])
    async def product(number: int) -> dict[str, int]:
        shop.clock.tick(1.0)
        return {"number": number, "call": shop.count()}

    @shop.app.get("/other", dependencies=[cached(ttl=60)])
    async def other(wrong: bool = False) -> str:
        if wrong:
            raise HTTPException(503)
        return "other"

    return shop


async def test_each_route_has_its_own_counts_and_the_totals_are_their_sums() -> None:
    """Hits, misses, forwards, errors and seconds stand with the route that had them."""
    shop = shop_of()
    for path in ("/products/1", "/products/1", "/products/2", "/products/1", "/other", "/other", "/other?wrong=1"):
        await shop.ask(path)
    now = shop.cache.statistics()
    product, other = now.routes["GET /products/{number}"], now.routes["GET /other"]
    assert list(now.routes) == ["GET /products/{number}", "GET /other"]
    assert (product.hits, product.misses, product.forwards, product.errors) == (2, 2, 2, 0)
    assert (product.forward_seconds, product.saved_seconds) == (2.0, 2.0)
    assert (other.hits, other.misses, other.errors) == (1, 2, 1)
    for name in ("hits", "stale", "misses", "collapsed", "bypassed", "responses"):
        assert getattr(now, name) == sum(getattr(each, name) for each in now.routes.values()), name


async def test_stale_answers_and_their_refreshes_count_to_the_route() -> None:
    """A stale answer is one, and the refresh that it causes is a forward."""
    shop = shop_of()
    await shop.ask("/products/1")
    shop.clock.tick(90)
    await shop.ask("/products/1")
    await shop.refreshed()
    product = shop.cache.statistics().routes["GET /products/{number}"]
    assert (product.stale, product.misses, product.forwards) == (1, 1, 2)


async def test_bytes_follow_what_is_kept() -> None:
    """What is stored counts to its route, aliases included; what is let go of no longer does."""
    shop = shop_of()
    empty = shop.cache.statistics().size_bytes
    for number in range(20):
        await shop.ask(f"/products/{number}")
    now = shop.cache.statistics()
    product = now.routes["GET /products/{number}"]
    assert product.responses == 20
    # The rest is the store's own tables.
    assert 0.5 < product.size_bytes / (now.size_bytes - empty) <= 1
    shop.cache._core.engine.store.clear()
    product = shop.cache.statistics().routes["GET /products/{number}"]
    assert (product.responses, product.size_bytes) == (0, 0)


async def test_what_is_let_go_of_for_room_no_longer_counts() -> None:
    """In a store that is too small the routes together hold what the store does."""
    shop = shop_of(l1_max_bytes=64 * 1024)
    for number in range(400):
        await shop.ask(f"/products/{number}")
    now = shop.cache.statistics()
    assert now.evicted > 0
    assert now.routes["GET /products/{number}"].responses == now.responses


async def test_requests_without_a_known_route_are_one() -> None:
    """By headers an app of another kind tells no route: its requests are counted together."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"max-age=60")]})
        await send({"type": "http.response.body", "body": b"plain"})

    shop = Shop(middleware={"honour_headers": True})
    shop.app.mount("/plain", app)
    for _ in range(3):
        await shop.ask("/plain/page")
    assert {label: each.hits for label, each in shop.cache.statistics().routes.items()} == {"(other)": 2}


async def test_collapsed_requests_count_to_their_route() -> None:
    """Of three requests at once one is a miss, and two are collapsed."""
    shop = Shop()
    calls: list[Call] = []

    @shop.app.get("/slow", dependencies=[cached(ttl=60)])
    async def slow() -> str:
        await until(lambda: shop.cache.statistics().waiting == 2, "two to wait")
        return "slow"

    async with lifespan_of(shop.app):
        calls += [Call(shop.app, scope_of("/slow")) for _ in range(3)]
        for call in calls:
            await call.answer()
    told = shop.cache.statistics().routes["GET /slow"]
    assert (told.misses, told.collapsed, told.hits) == (1, 2, 0)


async def test_what_is_told_is_frozen_and_does_not_move() -> None:
    """A snapshot stays what it was, and nobody can write into it."""
    shop = shop_of()
    await shop.ask("/other")
    before = shop.cache.statistics()
    await ask(shop.app, "/other")
    assert before.routes["GET /other"] == RouteStatistics(
        misses=1, forwards=1, responses=1, size_bytes=before.routes["GET /other"].size_bytes
    )
    routes: Any = before.routes
    with pytest.raises(TypeError):
        routes["GET /other"] = None
    told: Any = before.routes["GET /other"]
    with pytest.raises(FrozenInstanceError):
        told.hits = 3
