"""The route of a hit, in the server's span and metrics, with each of those who observe requests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Response
from opentelemetry.instrumentation._semconv import _OpenTelemetrySemanticConventionStability
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from fastapi_cacheinval import cached
from fastapi_cacheinval.contrib.cdn import Varnish, varnish_headers
from fastapi_cacheinval.framework import server_spans
from tests.helpers.http import Call, Shop, ask, scope_of
from tests.helpers.telemetry import Recorded, Watched, attributes_of

pytestmark = pytest.mark.anyio

ROUTE = "/products/{number}"
STABLE, OLD = "http.server.request.duration", "http.server.duration"


@pytest.fixture(params=["http", ""], ids=["stable", "old"])
def stable(request: Any, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Which names the instrumentations use: those of the stable conventions, or the old ones, their default."""
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", request.param)
    monkeypatch.setattr(_OpenTelemetrySemanticConventionStability, "_initialized", False)
    return bool(request.param)


def products(shop: Shop) -> Shop:
    """An app with one cached route."""

    @shop.app.get(ROUTE, dependencies=[cached(ttl=60)])
    async def read(number: int) -> int:
        return shop.count()

    return shop


@pytest.fixture
def by_fastapi(stable: bool) -> Iterator[Watched]:
    """An app under `opentelemetry-instrumentation-fastapi`."""
    shop = Watched(native=False)
    products(shop)
    FastAPIInstrumentor.instrument_app(shop.app, **shop.recorded.providers, exclude_spans=["receive", "send"])
    yield shop
    FastAPIInstrumentor.uninstrument_app(shop.app)


def routes_measured(recorded: Recorded, stable: bool) -> set[Any]:
    """The routes of the points of the duration of requests, by whichever name."""
    if stable:
        return {point.attributes.get("http.route") for point in recorded.points(STABLE)}
    return {point.attributes.get("http.target") for point in recorded.points(OLD)}


async def test_native_telemetry_has_the_route_of_a_front_hit() -> None:
    """FastAPI's own span and metric have route and name on a hit, the same as on a miss."""
    shop = Watched()
    products(shop)
    await shop.ask("/products/1")
    await shop.ask("/products/1")
    hit = shop.recorded.server()
    assert attributes_of(hit)["result"] == "hit"
    assert (hit.name, (hit.attributes or {})["http.route"]) == (f"GET {ROUTE}", ROUTE)
    assert shop.recorded.values(STABLE, "http.route") == {(ROUTE,): 2}


async def test_contrib_fastapi_has_the_route_of_a_front_hit(by_fastapi: Watched, stable: bool) -> None:
    """`opentelemetry-instrumentation-fastapi` has route and name on a hit, in the span and in either metric."""
    shop = by_fastapi
    await shop.ask("/products/1")
    await shop.ask("/products/1")
    hit = shop.recorded.server()
    assert attributes_of(hit)["result"] == "hit"
    assert (hit.name, (hit.attributes or {})["http.route"]) == (f"GET {ROUTE}", ROUTE)
    assert routes_measured(shop.recorded, stable) == {ROUTE}


@pytest.mark.parametrize("downstream", [None, varnish_headers(Varnish("http://127.0.0.1:1"), asked_by=None)])
@pytest.mark.parametrize("around", [True, False], ids=["around", "added"])
async def test_contrib_asgi_has_the_route_of_a_front_hit(around: bool, stable: bool, downstream: Any) -> None:
    """`opentelemetry-instrumentation-asgi`, which knows no routes, has route and name on hit and miss."""
    shop = Watched(native=False, middleware={"downstream": downstream})
    products(shop)
    app: Any = shop.app
    if around:
        app = OpenTelemetryMiddleware(shop.app, **shop.recorded.providers, exclude_spans=["receive", "send"])
    else:
        shop.app.add_middleware(OpenTelemetryMiddleware, **shop.recorded.providers)  # type: ignore[arg-type]
    for result in ("miss", "hit"):
        await ask(app, "/products/1")
        span = shop.recorded.server()
        assert attributes_of(span)["result"] == result
        assert (span.name, (span.attributes or {})["http.route"]) == (f"GET {ROUTE}", ROUTE)
    assert routes_measured(shop.recorded, stable) == {ROUTE}


async def pass_through(request: Any, call_next: Any) -> Any:
    """A function middleware."""
    return await call_next(request)


BETWEEN: dict[str, Any] = {
    "gzip": Middleware(GZipMiddleware, minimum_size=1),
    "cors": Middleware(CORSMiddleware, allow_origins=["*"]),
    "both": [Middleware(GZipMiddleware, minimum_size=1), Middleware(CORSMiddleware, allow_origins=["*"])],
    "function": Middleware(BaseHTTPMiddleware, dispatch=pass_through),
}


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("inside", [False, True])
async def test_layers_between_the_instrumentation_and_the_cache_do_not_hide_it(
    between: str, inside: bool, stable: bool
) -> None:
    """Layers outside of the cache have a `send` of their own; span and metrics have the route on hit and miss.

    A function middleware runs the app in a task of its own, so the metrics do not have it there.
    """
    shop = Watched(native=False)
    products(shop)
    if inside:
        shop.inside(BaseHTTPMiddleware, dispatch=pass_through)
    layers = BETWEEN[between] if isinstance(BETWEEN[between], list) else [BETWEEN[between]]
    for layer in layers:
        shop.app.user_middleware.insert(0, layer)
    app = OpenTelemetryMiddleware(shop.app, **shop.recorded.providers, exclude_spans=["receive", "send"])
    headers = {"accept-encoding": "gzip", "origin": "https://other.example"}
    for result in ("miss", "hit"):
        await ask(app, "/products/1", headers=headers)
        span = shop.recorded.server()
        assert attributes_of(span)["result"] == result
        assert (span.name, (span.attributes or {})["http.route"]) == (f"GET {ROUTE}", ROUTE)
    if between != "function":
        assert routes_measured(shop.recorded, stable) == {ROUTE}


@pytest.mark.parametrize("root_path", ["", "/api"])
async def test_included_and_mounted_routes_have_their_whole_template(root_path: str) -> None:
    """Prefixes of includes, mounts and the root path are in the route of a hit as they are in that of a miss."""
    shop = Watched()
    router, inner = APIRouter(prefix="/shop"), FastAPI()

    @router.get(ROUTE, dependencies=[cached(ttl=60)])
    async def read(number: int) -> int:
        return shop.count()

    @inner.get("/items/{name}", dependencies=[cached(ttl=60)])
    async def read_inner(name: str) -> int:
        return shop.count()

    shop.app.include_router(router, prefix="/v1")
    shop.app.mount("/inner", inner)
    templates = {"/v1/shop/products/1": f"/v1/shop{ROUTE}", "/inner/items/a": "/inner/items/{name}"}
    for path, template in templates.items():
        names = set()
        for result in ("miss", "hit"):
            await shop.ask(root_path + path, root_path=root_path)
            span = shop.recorded.server()
            assert attributes_of(span)["result"] == result
            names.add(span.name)
        assert names == {f"GET {root_path}{template}"}


async def test_a_head_request_has_the_route_too() -> None:
    """A HEAD that is answered with a stored GET is named by its own method."""
    shop = Watched()
    products(shop)
    await shop.ask("/products/1")
    await shop.ask("/products/1", method="HEAD")
    hit = shop.recorded.server()
    assert (hit.name, attributes_of(hit)["result"]) == (f"HEAD {ROUTE}", "hit")


async def test_a_hook_that_fails_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a release has come to look different the hit is answered all the same, without its name."""

    def changed(*_: Any) -> None:
        raise AttributeError

    shop = Watched()
    products(shop)
    await shop.ask("/products/1")
    monkeypatch.setattr(server_spans, "route_selected", changed)
    assert (await shop.ask("/products/1")).headers["cache-status"].startswith("cacheinval; hit")
    assert shop.recorded.server().name == "GET"


async def test_metrics_alone_have_the_route() -> None:
    """Without anybody who records spans the server's metrics still have the route of a hit."""
    recorded = Recorded()
    meters: dict[str, Any] = {"meter_provider": recorded.meter_provider}
    shop = Shop(fastapi={"telemetry": {**meters, "tracing": False}}, **meters)
    products(shop)
    for _ in range(3):
        await shop.ask("/products/1")
    assert recorded.values(STABLE, "http.route") == {(ROUTE,): 3}
    assert recorded.values("cacheinval.route.requests", "http.route") == {(ROUTE,): 3}
    assert recorded.values("cacheinval.route.hits", "http.route") == {(ROUTE,): 2}
    assert recorded.spans() == []


@pytest.mark.parametrize("contrib", [True, False], ids=["contrib imported", "without contrib"])
async def test_what_stands_around_the_cache_finds_the_route_of_a_hit(
    contrib: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the scope, as after a request that was routed: middlewares that count by route look there."""
    if not contrib:
        monkeypatch.delitem(sys.modules, OpenTelemetryMiddleware.__module__)
    recorded = Recorded()
    shop = products(Shop(meter_provider=recorded.meter_provider))
    for number in (1, 2, 1):
        scope = scope_of(f"/products/{number}")
        await Call(shop.app, scope).answer()
        assert scope["route"].path == scope["route"].path_format == ROUTE
    assert (shop.cache.statistics().hits, shop.calls) == (1, 2)


async def test_a_hit_by_headers_of_a_foreign_app_has_its_route() -> None:
    """Under `honour_headers` the route that Starlette left in the scope of the fill is that of the hit."""
    shop = Watched(middleware={"honour_headers": True})

    async def page(request: Any) -> Response:
        return Response(request.path_params["name"], headers={"cache-control": "max-age=60"})

    shop.app.add_route("/pages/{name}", page)
    for _ in range(2):
        await shop.ask("/pages/a")
    hit = shop.recorded.server()
    assert (hit.name, attributes_of(hit)["result"]) == ("GET /pages/{name}", "hit")
