"""Spans where no server's span stands for the request: `cacheinval.lookup`, and purges by hand."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry.trace import SpanKind

from fastapi_cacheinval import CachePolicy, cached
from tests.helpers.http import Shop, until
from tests.helpers.telemetry import Watched, attributes_of, identity_of, linked_to

pytestmark = pytest.mark.anyio

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def products(shop: Shop) -> None:
    """An app with a product."""

    @shop.app.get("/products/{number}", dependencies=[cached(CachePolicy(ttl=60))])
    async def read(number: int) -> int:
        return shop.count()


async def test_a_purge_by_hand_is_below_the_current_span_or_by_itself() -> None:
    """`cache.invalidate()` in a span of the author's is its child, and outside of any it begins a trace."""
    shop = Watched()
    async with shop.cache:
        await shop.cache.invalidate("a")
        assert shop.recorded.one("cacheinval.invalidate").parent is None
        shop.recorded.forget()
        with shop.recorded.tracer_provider.get_tracer("app").start_as_current_span("import"):
            await shop.cache.invalidate("a", soft=True)
    purge, outer = shop.recorded.spans()
    assert purge.parent is not None
    assert purge.parent.span_id == identity_of(outer)[1]
    assert attributes_of(purge) == {"soft": True, "seq": 2, "term": 1}


async def test_without_a_servers_span_a_lookup_has_one_of_its_own() -> None:
    """Where nobody observes requests `cacheinval.lookup` carries the attributes, in the trace of the caller."""
    shop = Watched(native=False)
    products(shop)
    await shop.ask("/products/1", headers={"traceparent": CALLER})
    miss = shop.recorded.one("cacheinval.lookup")
    assert attributes_of(miss) == {"result": "miss", "reason": "uri-miss"}
    assert (miss.attributes or {})["http.route"] == "/products/{number}"
    assert miss.parent is not None
    assert f"{identity_of(miss)[0]:032x}-{miss.parent.span_id:016x}" == CALLER[3:-3]
    shop.recorded.forget()
    await shop.ask("/products/1")
    hit = shop.recorded.one("cacheinval.lookup")
    assert attributes_of(hit) == {"result": "hit", "tier": "l1", "age": 0}
    assert linked_to(hit) == [identity_of(miss)]
    assert hit.kind is SpanKind.INTERNAL


async def test_a_route_without_a_policy_makes_no_lookup_span() -> None:
    """What is not cacheable is not a lookup."""
    shop = Watched(native=False)

    @shop.app.get("/plain")
    async def read() -> int:
        return shop.count()

    await shop.ask("/plain")
    assert shop.recorded.spans() == []


async def test_a_lookup_whose_client_goes_away_still_ends() -> None:
    """The span of a cancelled request is exported, and says that nobody was answered."""
    shop = Watched(native=False)
    gate = asyncio.Event()

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> int:
        await gate.wait()
        return shop.count()

    call = shop.call()
    await until(lambda: shop.cache.statistics().forwards_under_way)
    call.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.task
    assert attributes_of(shop.recorded.one("cacheinval.lookup")) == {"result": "miss", "detail": "cancelled"}
