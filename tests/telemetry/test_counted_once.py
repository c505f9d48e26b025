"""Every cacheable request is counted once in `cacheinval.requests`, whatever becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from opentelemetry.trace import StatusCode
from starlette.middleware.base import BaseHTTPMiddleware

from fastapi_cacheinval import CachePolicy, cached
from tests.helpers.http import Call, scope_of, settle, until
from tests.helpers.telemetry import Recorded, Watched, attributes_of
from tests.helpers.versions import NATIVE_TELEMETRY

pytestmark = pytest.mark.anyio

POLICY = CachePolicy(ttl=60)


def counted(recorded: Recorded) -> dict[tuple[Any, ...], int]:
    """The requests by result, and by what stood in the way or else why they went forward."""
    found = recorded.values("cacheinval.requests", "cacheinval.result", "cacheinval.detail", "cacheinval.reason")
    return {(result, detail or reason): count for (result, detail, reason), count in found.items()}


async def failing(shop: Watched, path: str = "/", **more: Any) -> None:
    """One request whose handler raises past the cache."""
    with pytest.raises(RuntimeError):
        await Call(shop.app, scope_of(path, **more)).answer()


def out_of_order(shop: Watched, **options: Any) -> None:
    """An app whose only route raises."""

    @shop.app.get("/{name}", dependencies=[cached(POLICY, **options)])
    async def read(name: str) -> None:
        raise RuntimeError(name)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("honoured", [False, True])
async def test_an_uncaught_exception_is_a_failed_miss(native: bool, honoured: bool) -> None:
    """A handler that raises is one miss with the detail `failed`, in the metrics and in the request's span."""
    shop = Watched(native=native, middleware={"honour_headers": honoured})
    out_of_order(shop)
    for _ in range(3):
        await failing(shop, "/a")
    assert counted(shop.recorded) == {("miss", "failed"): 3}
    assert shop.recorded.values("cacheinval.route.requests", "http.route") == {("/{name}",): 3}
    assert shop.cache.statistics().misses == 3
    for span in shop.recorded.spans("GET /{name}" if native else "cacheinval.lookup"):
        assert attributes_of(span) == {"result": "miss", "detail": "failed"}
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {})["error.type"] in ("RuntimeError", "builtins.RuntimeError", "500")


async def test_an_uncaught_exception_by_headers_is_a_failed_miss() -> None:
    """Where the responses' headers decide, an app that raises is counted in the same way."""
    shop = Watched(native=False, middleware={"honour_headers": True})

    @shop.app.get("/page")
    async def page() -> None:
        raise RuntimeError

    shop.app.router.add_api_route("/page", page, methods=["HEAD"])
    await failing(shop, "/page")
    await failing(shop, "/page", method="HEAD")
    assert counted(shop.recorded) == {("miss", "failed"): 2}
    assert {attributes_of(span)["detail"] for span in shop.recorded.spans()} == {"failed"}


async def test_a_contradicted_validation_by_headers_is_one_request() -> None:
    """A 304 that speaks of another response has the app asked again, within one request that is counted once."""
    shop = Watched(native=False, middleware={"honour_headers": True})
    asked: list[Any] = []
    fail = False

    @shop.app.get("/page")
    async def page(request: Request) -> Any:
        from fastapi import Response

        asked.append(request.headers.get("if-none-match"))
        if request.headers.get("if-none-match"):
            return Response(status_code=304, headers={"etag": '"other"'})
        if fail:
            raise RuntimeError
        return Response("x", headers={"etag": '"one"', "cache-control": "max-age=1"})

    await shop.ask("/page")
    shop.clock.tick(5)
    await shop.ask("/page")
    assert asked == [None, '"one"', None]
    assert sum(counted(shop.recorded).values()) == 2
    shop.clock.tick(5)
    fail = True
    await failing(shop, "/page")
    assert counted(shop.recorded)["miss", "failed"] == 1
    assert sum(counted(shop.recorded).values()) == 3
    assert [attributes_of(span)["result"] for span in shop.recorded.spans("cacheinval.lookup")] == ["miss"] * 3


async def test_a_dependency_that_raises_or_refuses_is_a_bypass() -> None:
    """What a guard refuses, or fails on, never asked the cache: one bypass, `refused` or `failed`, with the route."""
    shop = Watched()

    async def guard(request: Request) -> None:
        if "x-broken" in request.headers:
            raise RuntimeError
        if "x-key" not in request.headers:
            raise HTTPException(401)

    @shop.app.get("/reports", dependencies=[cached(POLICY, guarded_by=guard)])
    async def read() -> int:
        return shop.count()

    assert (await shop.ask("/reports")).status_code == 401
    assert [attributes_of(span) for span in shop.recorded.spans("GET /reports")] == [
        {"result": "bypass", "detail": "refused"}
    ] * NATIVE_TELEMETRY
    await failing(shop, "/reports", headers={"x-broken": "1"})
    await shop.ask("/reports", headers={"x-key": "1"})
    await shop.ask("/reports", headers={"x-key": "1"})
    assert counted(shop.recorded) == {
        ("bypass", "refused"): 1,
        ("bypass", "failed"): 1,
        ("miss", "uri-miss"): 1,
        ("hit", None): 1,
    }
    assert shop.recorded.values("cacheinval.route.requests", "http.route") == {("/reports",): 4}


async def test_a_dependency_of_the_handler_that_raises_is_a_failed_miss() -> None:
    """A dependency that runs after the cache was asked fails the forward, as the handler would."""
    shop = Watched()

    async def database() -> None:
        raise RuntimeError

    @shop.app.get("/", dependencies=[cached(POLICY)])
    async def read(_: None = Depends(database)) -> int:
        return shop.count()

    await failing(shop)
    assert counted(shop.recorded) == {("miss", "failed"): 1}


async def test_behind_layers_a_request_is_counted_once() -> None:
    """A middleware between cache and route changes nothing: a miss, a hit, an error and a refusal are one each."""
    shop = Watched()

    async def layer(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    shop.inside(BaseHTTPMiddleware, dispatch=layer)

    async def guard(request: Request) -> None:
        if "x-key" not in request.headers:
            raise HTTPException(401)

    @shop.app.get("/{name}", dependencies=[cached(POLICY, guarded_by=guard)])
    async def read(name: str) -> int:
        if name == "broken":
            raise RuntimeError
        return shop.count()

    for _ in range(2):
        await shop.ask("/a", headers={"x-key": "1"})
    await failing(shop, "/broken", headers={"x-key": "1"})
    await shop.ask("/a")
    assert counted(shop.recorded) == {
        ("miss", "uri-miss"): 1,
        ("hit", None): 1,
        ("miss", "failed"): 1,
        ("bypass", "refused"): 1,
    }


async def test_a_cancelled_request_is_counted() -> None:
    """A forward and a waiter whose requests are cancelled are one miss each, with the detail `cancelled`."""
    shop = Watched(native=False)
    gate = asyncio.Event()

    @shop.app.get("/", dependencies=[cached(POLICY)])
    async def read() -> int:
        await gate.wait()
        return shop.count()

    leader = shop.call()
    await until(lambda: shop.cache.statistics().forwards_under_way)
    waiter = shop.call()
    await settle()
    for call in (waiter, leader):
        call.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call.task
    assert counted(shop.recorded) == {("miss", "cancelled"): 2}
    for span in shop.recorded.spans("cacheinval.lookup"):
        assert attributes_of(span) == {"result": "miss", "detail": "cancelled"}
        assert span.status.status_code is StatusCode.UNSET


async def test_a_stream_that_breaks_is_counted_once() -> None:
    """A response that had begun when its handler raised is the miss that it began as, and not another one."""
    shop = Watched()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"a"
        raise RuntimeError

    @shop.app.get("/", dependencies=[cached(POLICY)])
    async def read() -> StreamingResponse:
        return StreamingResponse(chunks())

    await failing(shop)
    assert counted(shop.recorded) == {("miss", "uri-miss"): 1}


async def test_an_app_that_answers_nothing_is_counted() -> None:
    """A route whose app returns without a response is an incomplete miss."""
    shop = Watched()

    class Silent(StreamingResponse):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            """Say nothing."""

    @shop.app.get("/", dependencies=[cached(POLICY, shared=True)])
    async def read() -> StreamingResponse:
        return Silent([b""])

    await Call(shop.app, scope_of("/")).task
    assert counted(shop.recorded) == {("miss", "incomplete"): 1}


async def test_while_the_cache_is_off_an_exception_is_a_failed_bypass() -> None:
    """The kill switch does not hide failures from the counts."""
    shop = Watched()
    out_of_order(shop)
    shop.cache.enabled = False
    await failing(shop, "/a")
    assert counted(shop.recorded) == {("bypass", "failed"): 1}


async def test_a_stale_response_that_stands_in_is_not_a_failure() -> None:
    """An exception that a stored response hides is one stale answer; its own lookup span is no error."""
    shop = Watched(native=False)
    broken = False

    @shop.app.get("/", dependencies=[cached(CachePolicy(ttl=60, stale_if_error=600))])
    async def read() -> int:
        if broken:
            raise RuntimeError
        return shop.count()

    await shop.ask()
    shop.clock.tick(61)
    broken = True
    await shop.ask()
    assert counted(shop.recorded) == {("miss", "uri-miss"): 1, ("stale", "stale"): 1}
    assert all(span.status.status_code is StatusCode.UNSET for span in shop.recorded.spans())


async def test_what_is_not_cacheable_is_not_counted() -> None:
    """Routes without a policy, other methods and unknown paths are none of the cache's, whatever becomes of them."""
    shop = Watched()
    out_of_order(shop)
    inner = FastAPI()

    @shop.app.get("/plain/{name}")
    async def plain(name: str) -> None:
        raise RuntimeError

    @shop.app.post("/{name}")
    async def write(name: str) -> None:
        raise RuntimeError

    @inner.get("/off", dependencies=[cached(POLICY), cached(ttl=0)])
    async def off() -> None:
        raise RuntimeError

    shop.app.mount("/inner", inner)
    for path, method in (("/plain/a", "GET"), ("/a", "POST"), ("/inner/off", "GET")):
        await failing(shop, path, method=method)
    await shop.ask("/a/b/c")
    assert counted(shop.recorded) == {}


async def test_a_route_that_is_added_later_is_counted_from_its_first_request() -> None:
    """A request that goes past the cache, because its route was not known, is a bypass."""
    shop = Watched()
    out_of_order(shop)
    late = APIRouter()

    @late.get("/late/page", dependencies=[cached(POLICY)])
    async def read() -> int:
        return shop.count()

    await failing(shop, "/a")
    shop.app.include_router(late)
    await shop.ask("/late/page")
    await shop.ask("/late/page")
    assert sum(counted(shop.recorded).values()) == 3


async def test_a_layer_that_asks_the_route_twice_is_one_request() -> None:
    """A middleware that repeats the request at its route makes two forwards of it, and one request."""
    shop = Watched()

    class Twice:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await self.app(scope, receive, send)
                return

            async def nowhere(message: Any) -> None:
                """The first answer is thrown away."""

            await self.app({**scope}, receive, nowhere)
            await self.app(scope, receive, send)

    shop.inside(Twice)

    @shop.app.get("/", dependencies=[cached(POLICY)])
    async def read() -> int:
        return shop.count()

    await shop.ask()
    assert shop.calls == 2
    assert sum(counted(shop.recorded).values()) == 1
