"""`HTTPCache(shadow=...)`: a share of hits is made again and compared, and nothing comes of it but counts."""

# No postponed annotations: the handlers name classes and callables of their own test.

import asyncio
from typing import Annotated, Any

import pytest
from fastapi import Depends, Header, HTTPException
from starlette.middleware.gzip import GZipMiddleware

from fastapi_cacheinval import ConfigurationError, HTTPCache, ShadowStatistics, cached, invalidates
from tests.helpers.http import Call, Shop, lifespan_of, scope_of, settle, until

pytestmark = pytest.mark.anyio


def tenant(x_tenant: Annotated[str, Header()]) -> str:
    return x_tenant


def shop_of(share: float = 1.0, **options: Any) -> Shop:
    """A page that stays as it is, one that changes without a purge, and one per tenant."""
    shop = Shop(shadow=share, **options)

    @shop.app.get("/same/{number}", dependencies=[cached(ttl=60, tags=["same:{number}"])])
    async def same(number: int) -> str:
        shop.count()
        return f"{number}"

    @shop.app.get("/other", dependencies=[cached(ttl=60)])
    async def other() -> str:
        return f"call {shop.count()}"

    @shop.app.get("/mine", dependencies=[cached(ttl=60, partition_by=tenant)])
    async def mine(name: Annotated[str, Depends(tenant)]) -> str:
        shop.count()
        return name

    @shop.app.put("/same/{number}", dependencies=[invalidates("same:{number}")])
    async def write(number: int) -> None: ...

    return shop


def shadow_of(shop: Shop) -> ShadowStatistics:
    return shop.cache.statistics().shadow


async def compared(shop: Shop, count: int) -> ShadowStatistics:
    """Wait for so many comparisons, whatever came of them."""
    await until(lambda: (now := shadow_of(shop)).compared + now.failed + now.skipped >= count, f"{count} comparisons")
    return shadow_of(shop)


async def test_what_stays_the_same_is_equal() -> None:
    """From the front and at the route, compressed or not; each hit is one call more of the handler."""
    shop = shop_of()
    shop.inside(GZipMiddleware, minimum_size=1)
    async with lifespan_of(shop.app):
        for headers in ({}, {"accept-encoding": "gzip"}):
            await shop.ask("/same/1", headers=headers)
            await shop.ask("/same/1", headers=headers)
        for _ in range(2):
            await shop.ask("/mine", headers={"x-tenant": "acme"})
        now = await compared(shop, 3)
    assert (now.compared, now.different, now.failed, now.skipped) == (3, 0, 0, 0)
    assert shop.calls == 3 + 3


async def test_what_has_changed_without_a_purge_is_counted_by_route(caplog: pytest.LogCaptureFixture) -> None:
    """With one warning for the route, and without a word of what is in the answers."""
    shop = shop_of()
    async with lifespan_of(shop.app):
        await shop.ask("/other")
        for count in range(3):
            hit = await shop.ask("/other")
            await compared(shop, count + 1)
    now = shadow_of(shop)
    assert (now.compared, now.different) == (3, 3)
    assert now.different_by_route == {"GET /other": 3}
    assert hit.body == b'"call 1"'
    lines = [record.getMessage() for record in caplog.records if record.name == "fastapi_cacheinval.shadow"]
    assert len(lines) == 1
    assert "GET /other" in lines[0]
    assert "call 1" not in lines[0]


async def test_nothing_else_comes_of_it() -> None:
    """No request, no fill and no refresh is counted, nothing is stored anew, no flight is led."""
    shop = shop_of()
    async with lifespan_of(shop.app):
        await shop.ask("/other")
        stored = shop.cache._core.engine.store.statistics()
        events: list[Any] = []
        shop.cache.subscribe(events.append)
        await shop.ask("/other")
        await compared(shop, 1)
        now = shop.cache.statistics()
    assert (now.hits, now.misses, now.bypassed, dict(now.fills), dict(now.refreshes)) == (1, 1, 0, {"stored": 1}, {})
    assert len(events) == 1
    assert shop.cache._core.engine.store.statistics() == stored
    assert (now.forwards_under_way, dict(now.purges)) == (0, {})


async def test_the_caller_is_asked_for_again() -> None:
    """With the request's own fields, so that a partition's page is compared with its own caller's."""
    shop = shop_of()
    async with lifespan_of(shop.app):
        for name in ("acme", "other") * 2:
            await shop.ask("/mine", headers={"x-tenant": name, "if-none-match": '"x"'})
        now = await compared(shop, 2)
    assert (now.compared, now.different) == (2, 0)


async def test_a_purge_meanwhile_makes_it_of_no_use() -> None:
    """What the app answers then may be newer, and right."""
    shop = Shop(shadow=1.0)
    gate = asyncio.Event()
    gate.set()

    @shop.app.get("/it", dependencies=[cached(ttl=60)])
    async def read() -> int:
        await gate.wait()
        return shop.count()

    async with lifespan_of(shop.app):
        await shop.ask("/it")
        gate.clear()
        await shop.ask("/it")
        await shop.cache.clear()
        gate.set()
        now = await compared(shop, 1)
    assert (now.compared, now.skipped) == (0, 1)


async def test_it_is_bounded_in_number_and_in_time() -> None:
    """Four at once; what is drawn beyond them is counted as skipped, and one that never answers has failed."""
    shop = Shop(shadow=1.0, refresh_timeout=5)
    hang = False

    @shop.app.get("/it", dependencies=[cached(ttl=600)])
    async def read() -> int:
        if hang:
            await asyncio.Event().wait()
        return shop.count()

    async with lifespan_of(shop.app):
        await shop.ask("/it")
        hang = True
        for _ in range(10):
            await shop.ask("/it")
        await settle()
        assert shadow_of(shop).skipped == 6
        shop.clock.tick(6)
        now = await compared(shop, 10)
    assert (now.failed, now.skipped) == (4, 6)


async def test_an_app_that_fails_is_no_difference() -> None:
    """Neither an uncaught error nor a 503 says that what is stored is wrong; a 404 does."""
    shop = Shop(shadow=1.0)
    answers: list[Exception | None] = [None, RuntimeError("again"), HTTPException(503), HTTPException(404)]

    @shop.app.get("/it", dependencies=[cached(ttl=60)])
    async def read() -> str:
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return "it"

    async with lifespan_of(shop.app):
        for count in range(4):
            assert (await shop.ask("/it")).status_code == 200
            await compared(shop, count)
    now = shadow_of(shop)
    assert (now.failed, now.compared, now.different) == (2, 1, 1)


async def test_by_headers_hits_are_compared_too() -> None:
    """Under `honour_headers` as well."""
    shop = Shop(shadow=1.0, middleware={"honour_headers": True})

    @shop.app.get("/page")
    async def page() -> Any:
        from fastapi import Response

        return Response(f"page {shop.count()}", headers={"cache-control": "max-age=60"})

    async with lifespan_of(shop.app):
        for _ in range(2):
            await shop.ask("/page")
        now = await compared(shop, 1)
    assert now.different_by_route == {"GET /page": 1}


async def test_off_is_the_default_and_makes_nothing_again() -> None:
    """Hits take the quick way, and the handler runs once."""
    shop = shop_of(0)
    async with lifespan_of(shop.app):
        for _ in range(3):
            await shop.ask("/same/1")
        await settle()
    assert shop.calls == 1
    assert shop.cache._core.counters.hits == 2
    assert HTTPCache().settings.shadow == 0
    assert shadow_of(shop) == ShadowStatistics()


async def test_about_so_many_are_drawn() -> None:
    """A share of a tenth makes about a tenth of the hits again, and all of them are answered at once."""
    shop = shop_of(0.1)
    draws = iter([0.05, *[0.5] * 9] * 10)
    shop.cache._core.shadow._draw = lambda: next(draws)
    async with lifespan_of(shop.app):
        await shop.ask("/same/1")
        for _ in range(100):
            await Call(shop.app, scope_of("/same/1")).answer()
            await settle(5)
        now = await compared(shop, 10)
    assert (now.compared, now.skipped) == (10, 0)


@pytest.mark.parametrize("share", [-0.1, 1.1, True, "0.5", None, float("nan")])
def test_a_share_that_is_none_is_refused(share: Any) -> None:
    """When the cache is made, and named."""
    with pytest.raises(ConfigurationError, match="shadow"):
        HTTPCache(shadow=share)
