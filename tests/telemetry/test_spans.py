"""What spans say of requests, in one process."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import Depends, HTTPException, Request
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from starlette.middleware.base import BaseHTTPMiddleware

from fastapi_cacheinval import CacheMiddleware, CachePolicy, cached, invalidates
from tests.helpers.http import Call, Shop, ask, scope_of
from tests.helpers.telemetry import Recorded, Watched, attributes_of, identity_of, linked_to, same_trace

pytestmark = pytest.mark.anyio

STALE = CachePolicy(ttl=60, stale_while_revalidate=600, stale_if_error=600)
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = CALLER[:-1] + "0"


def products(shop: Shop, policy: CachePolicy = STALE) -> Shop:
    """An app with a product and a way to change it."""

    @shop.app.get("/products/{number}", dependencies=[cached(policy, tags=["product:{number}"])])
    async def read(number: int) -> int:
        return shop.count()

    @shop.app.put("/products/{number}", dependencies=[invalidates("product:{number}")])
    async def write(number: int) -> None: ...

    return shop


async def test_a_miss_and_a_hit_are_told_by_the_servers_span() -> None:
    """The server's span has result, tier, age and reason; no span of the cache's own is made for a front hit."""
    shop = Watched()
    products(shop)
    await shop.ask("/products/1")
    miss = shop.recorded.server()
    assert attributes_of(miss) == {"result": "miss", "reason": "uri-miss"}
    shop.clock.tick(7)
    shop.recorded.forget()
    answer = await shop.ask("/products/1")
    hit = shop.recorded.one("GET /products/{number}")
    assert attributes_of(hit) == {"result": "hit", "tier": "l1", "age": 7}
    assert answer.headers["age"] == "7"
    assert len(shop.recorded.spans()) == 1


async def test_a_hit_links_to_the_trace_that_filled_it() -> None:
    """The link of a hit is the server span of the request whose forward filled it, for every hit."""
    shop = Watched()
    products(shop)
    await shop.ask("/products/1")
    fill = shop.recorded.server()
    for _ in range(2):
        await shop.ask("/products/1")
        hit = shop.recorded.server()
        assert linked_to(hit) == [identity_of(fill)]
        assert not same_trace(hit, fill)


async def test_a_hit_of_the_route_lookup_is_told_by_the_servers_span() -> None:
    """Behind a guard, where an inner span is current, the span that the request came in with gets the attributes."""
    shop = Watched()

    async def guard(request: Request) -> None:
        if "x-key" not in request.headers:
            raise HTTPException(401)

    @shop.app.get("/reports", dependencies=[cached(ttl=60, guarded_by=guard)])
    async def read() -> int:
        return shop.count()

    await shop.ask("/reports", headers={"x-key": "1"})
    fill = shop.recorded.server()
    await shop.ask("/reports", headers={"x-key": "1"})
    hit = shop.recorded.server()
    assert hit.name == "GET /reports"
    assert attributes_of(hit) == {"result": "hit", "tier": "l1", "age": 0}
    assert linked_to(hit) == [identity_of(fill)]
    assert all(span.status.status_code is not StatusCode.ERROR for span in shop.recorded.spans())


async def test_a_refresh_is_a_trace_of_its_own_linked_to_the_request_that_caused_it() -> None:
    """A stale hit's refresh links to that hit, and the next hit links to the refresh that filled it."""
    shop = Watched()
    products(shop)
    await shop.ask("/products/1")
    shop.clock.tick(61)
    await shop.ask("/products/1", headers={"traceparent": CALLER})
    stale = shop.recorded.server()
    assert attributes_of(stale) == {"result": "stale", "tier": "l1", "age": 61}
    refresh = await shop.span_of_refresh()
    assert refresh.parent is None
    assert not same_trace(refresh, stale)
    assert linked_to(refresh) == [identity_of(stale)]
    assert attributes_of(refresh) == {"outcome": "stored"}
    await shop.ask("/products/1")
    assert linked_to(shop.recorded.server()) == [identity_of(refresh)]


async def test_what_a_refresh_does_is_below_its_span() -> None:
    """Spans that the app makes while it answers a refresh belong to the refresh's trace, not to the caller's."""
    shop = Watched()
    tracer = shop.recorded.tracer_provider.get_tracer("app")

    @shop.app.get("/", dependencies=[cached(STALE)])
    async def read() -> int:
        with tracer.start_as_current_span("query"):
            return shop.count()

    await shop.ask()
    shop.clock.tick(61)
    shop.recorded.forget()
    await shop.ask(headers={"traceparent": CALLER})
    refresh = await shop.span_of_refresh()
    query = shop.recorded.one("query")
    assert query.parent is not None
    assert query.parent.span_id == identity_of(refresh)[1]


async def test_a_mutations_purge_is_below_its_span() -> None:
    """`cacheinval.invalidate` is a child of the server span of the mutation, which says nothing of a lookup."""
    shop = Watched()
    products(shop)
    await shop.ask("/products/1", method="PUT")
    mutation, purge = shop.recorded.server(), shop.recorded.one("cacheinval.invalidate")
    assert purge.parent is not None
    assert purge.parent.span_id == identity_of(mutation)[1]
    assert attributes_of(purge) == {"soft": False, "seq": 1, "term": 1}
    assert attributes_of(mutation) == {}


async def test_a_purge_links_to_what_caused_it_elsewhere() -> None:
    """It is a trace of its own with a link for each trace context that came; what is none is no link, and no error."""
    shop = Watched()
    other = f"00-{1:032x}-{2:016x}-01"
    nonsense = {"traceparent": "00-nonsense", "baggage": "a=b"}
    async with shop.cache:
        await shop.cache.invalidate("a", causes=[{"Traceparent": CALLER}, {}, nonsense, {"traceparent": other}])
    purge = shop.recorded.one("cacheinval.invalidate")
    assert purge.parent is None
    assert [f"00-{trace:032x}-{span:016x}-01" for trace, span in linked_to(purge)] == [CALLER, other]


@pytest.mark.parametrize("native", [True, False])
async def test_under_an_unsampled_request_nothing_is_made(native: bool) -> None:
    """A caller that does not record its trace gets no spans of ours: not for hits, refreshes or purges, and no links."""
    shop = Watched(native=native)
    products(shop)
    for path, method in (
        ("/products/1", "GET"),
        ("/products/1", "GET"),
        ("/products/1", "PUT"),
        ("/products/2", "GET"),
    ):
        await shop.ask(path, method=method, headers={"traceparent": UNSAMPLED})
    shop.clock.tick(61)
    await shop.ask("/products/2", headers={"traceparent": UNSAMPLED})
    await shop.refreshed()
    assert shop.recorded.spans() == []
    await shop.ask("/products/2")
    assert [linked_to(span) for span in shop.recorded.spans()] == [[]]


async def test_with_the_sampler_off_nothing_is_made() -> None:
    """A sampler that records nothing sees to it that nothing is recorded; answers are the same."""
    shop = Watched(ALWAYS_OFF)
    products(shop)
    await shop.ask("/products/1")
    assert (await shop.ask("/products/1")).headers["cache-status"].startswith("cacheinval; hit")
    await shop.ask("/products/1", method="PUT")
    assert shop.recorded.spans() == []
    assert shop.recorded.values("cacheinval.requests", "cacheinval.result") == {("miss",): 1, ("hit",): 1}


def around(*, native: bool, **middleware: Any) -> tuple[Recorded, Shop, CacheMiddleware]:
    """An app with the middleware around it, outside of FastAPI's own telemetry if there is any."""
    recorded = Recorded()
    telemetry: dict[str, Any] = recorded.providers if native else {"tracing": False, "metrics": False}
    shop = Shop(fastapi={"telemetry": telemetry}, **recorded.providers)
    shop.app.user_middleware.clear()
    return recorded, shop, CacheMiddleware(shop.app, cache=shop.cache, **middleware)


async def test_the_middleware_around_the_app_makes_lookup_spans() -> None:
    """Wrapped from outside, FastAPI's own spans are behind the cache: a hit has a lookup span with its route alone."""
    recorded, shop, app = around(native=True)
    products(shop)
    await ask(app, "/products/1")
    assert len([span for span in recorded.spans() if span.kind is SpanKind.SERVER]) == 1
    recorded.forget()
    await ask(app, "/products/1")
    (hit,) = recorded.spans()
    assert (hit.name, attributes_of(hit)["result"]) == ("cacheinval.lookup", "hit")
    assert (hit.attributes or {})["http.route"] == "/products/{number}"


@pytest.mark.parametrize("honoured", [False, True])
@pytest.mark.parametrize("caller", [None, CALLER])
async def test_around_the_app_its_spans_and_the_lookup_are_joined(honoured: bool, caller: str | None) -> None:
    """On a miss FastAPI's span is in the caller's trace with the lookup, or else each of the two links to the other."""
    recorded, shop, app = around(native=True, honour_headers=honoured)
    products(shop)

    @shop.app.get("/page")
    async def page() -> object:
        from fastapi import Response

        return Response("page", headers={"cache-control": "max-age=60"})

    for path in ("/products/1", "/page") if honoured else ("/products/1",):
        recorded.forget()
        await ask(app, path, headers={} if caller is None else {"traceparent": caller})
        lookup, server = recorded.one("cacheinval.lookup"), recorded.server()
        assert attributes_of(lookup)["result"] == "miss"
        if caller is None:
            assert linked_to(lookup) == [identity_of(server)]
            assert linked_to(server) == [identity_of(lookup)]
        else:
            assert same_trace(lookup, server)
            assert linked_to(lookup) == linked_to(server) == []


@pytest.mark.parametrize("layered", [False, True])
@pytest.mark.parametrize("path", ["/", "/page"])
async def test_without_a_servers_span_the_lookup_is_the_parent_of_the_apps(layered: bool, path: str) -> None:
    """Spans that the app makes are below the lookup, in either mode, in plain handlers too; and nothing is left over."""
    shop = Watched(native=False, middleware={"honour_headers": True})
    tracer = shop.recorded.tracer_provider.get_tracer("app")

    async def layer(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    if layered:
        shop.inside(BaseHTTPMiddleware, dispatch=layer)

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    def read() -> int:
        with tracer.start_as_current_span("query"):
            return shop.count()

    @shop.app.get("/page")
    async def page() -> int:
        with tracer.start_as_current_span("query"):
            return shop.count()

    await shop.ask(path)
    lookup, query = shop.recorded.one("cacheinval.lookup"), shop.recorded.one("query")
    assert query.parent is not None
    assert (query.parent.trace_id, query.parent.span_id) == identity_of(lookup)
    assert not trace.get_current_span().get_span_context().is_valid
    with tracer.start_as_current_span("later"):
        pass
    assert shop.recorded.one("later").parent is None


async def test_a_hit_by_headers_is_told_and_linked() -> None:
    """Under `honour_headers` hits are told by the server's span as well, with route, link and tier."""
    shop = Watched(middleware={"honour_headers": True})

    @shop.app.get("/pages/{name}")
    async def read(name: str) -> object:
        from fastapi import Response

        return Response(name, headers={"cache-control": "max-age=60"})

    await shop.ask("/pages/a")
    fill = shop.recorded.server()
    assert attributes_of(fill) == {"result": "miss", "reason": "uri-miss"}
    await shop.ask("/pages/a")
    hit = shop.recorded.server()
    assert hit.name == "GET /pages/{name}"
    assert attributes_of(hit) == {"result": "hit", "tier": "l1", "age": 0}
    assert linked_to(hit) == [identity_of(fill)]


async def test_the_purge_after_an_error_is_below_the_mutations_span() -> None:
    """A mutation that raises purges in a task of the cache's own, still in the mutation's trace."""
    shop = Watched()

    @shop.app.put("/", dependencies=[invalidates("it")])
    async def write() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await Call(shop.app, scope_of("/", method="PUT")).answer()
    assert same_trace(shop.recorded.server(), shop.recorded.one("cacheinval.invalidate"))


async def test_partitions_and_dependencies_see_the_same_span() -> None:
    """A hit in a partition is told like any other, and nothing of the partition is."""
    shop = Watched()

    async def tenant(request: Request) -> str:
        return request.headers["x-tenant"]

    @shop.app.get("/", dependencies=[cached(ttl=60, partition_by=tenant)])
    async def read(name: str = Depends(tenant)) -> str:
        return name

    for _ in range(2):
        await shop.ask(headers={"x-tenant": "acme-secret"})
    hit = shop.recorded.server()
    assert attributes_of(hit) == {"result": "hit", "tier": "l1", "age": 0}
    assert "acme-secret" not in "".join(span.to_json() for span in shop.recorded.spans())
