"""A cache of a mounted app: its routes are purged by name and by URL, though it cannot know where it is mounted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request, Response
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Host, Mount

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates, path_key
from fastapi_cacheinval.contrib.cdn import purge_of, varnish_headers
from fastapi_cacheinval.testing import assert_hit, assert_miss, capture_invalidations
from tests.framework.downstream.told import VARNISH, VIA, keys
from tests.helpers.http import ask

pytestmark = pytest.mark.anyio


class Api:
    """An app with one page, and a mutation that purges it by hand in each of the ways that an author may take."""

    def __init__(self, cache: HTTPCache, *, by_headers: bool) -> None:
        self.cache = cache
        self.middleware: dict[str, Any] = {"cache": cache, **({"honour_headers": True} if by_headers else {})}
        self.app = FastAPI(openapi_url=None)
        policy = [] if by_headers else [cached(ttl=60)]

        @self.app.get("/prices/{number}", dependencies=policy)
        async def read_price(number: int, response: Response) -> int:
            if by_headers:
                response.headers["cache-control"] = "max-age=60"
            return number

        @self.app.post("/imports/{way}", dependencies=[invalidates(paths=False)])
        async def imports(way: str, request: Request) -> None:
            local = self.app.url_path_for("read_price", number=1)
            match way:
                case "name":
                    await cache.invalidate_route("read_price", number=1)
                case "its own path":
                    await cache.invalidate_url(local)
                case "the app's path":
                    await cache.invalidate_url(request.app.url_path_for("read_price", number=1))
                case "url":
                    await cache.invalidate_url(str(request.url_for("read_price", number=1)))
                case "path":
                    await cache.invalidate_url(request.url_for("read_price", number=1).path)

    @property
    def cached(self) -> FastAPI:
        """The app with the cache inside."""
        self.app.add_middleware(CacheMiddleware, **self.middleware)
        return self.app


def mounted(api: Api, prefix: str = "/api") -> Any:
    outer = FastAPI(openapi_url=None)
    outer.mount(prefix, api.cached)
    return outer


def mounted_thrice(api: Api) -> Any:
    middle, outer = Starlette(routes=[Mount("/v1", api.cached)]), FastAPI(openapi_url=None)
    outer.mount("/api", middle)
    return Starlette(routes=[Mount("/all", outer)])


def below_a_cached_app(api: Api) -> Any:
    """The cache is that of the app in the middle, which knows one mount and not the other."""
    middle = FastAPI(openapi_url=None)
    middle.mount("/v1", api.app)
    middle.add_middleware(CacheMiddleware, **api.middleware)
    return Starlette(routes=[Mount("/api", middle)])


def mounted_twice(api: Api) -> Any:
    app = api.cached
    return Starlette(routes=[Mount("/v1", app), Mount("/v2", app)])


def of_a_mount(api: Api) -> Any:
    return Starlette(routes=[Mount("/api", api.app, middleware=[Middleware(CacheMiddleware, **api.middleware)])])


def wrapped(api: Api) -> Any:
    outer = FastAPI(openapi_url=None)
    outer.mount("/api", CacheMiddleware(api.app, **api.middleware))
    return outer


def behind_a_layer(api: Api) -> Any:
    outer = mounted(api)
    outer.add_middleware(BaseHTTPMiddleware, dispatch=lambda request, call_next: call_next(request))
    return outer


def cached_outside_too(api: Api) -> Any:
    outer = mounted(api)
    outer.add_middleware(CacheMiddleware, **api.middleware)
    return outer


def cached_outside(api: Api) -> Any:
    outer = FastAPI(openapi_url=None)
    outer.mount("/api", api.app)
    outer.add_middleware(CacheMiddleware, **api.middleware)
    return outer


def for_a_host(api: Api) -> Any:
    return Starlette(routes=[Host("test", api.cached)])


def included(api: Api) -> Any:
    router = APIRouter(prefix="/api")
    router.include_router(api.app.router)
    api.app = FastAPI(openapi_url=None)
    api.app.include_router(router)
    return api.cached


BY_NAME = ["name", "its own path", "the app's path"]
ALL_WAYS = [*BY_NAME, "url", "path"]
SHAPES: dict[str, tuple[Callable[[Api], Any], str, list[str]]] = {
    "alone": (lambda api: api.cached, "", ALL_WAYS),
    "mounted": (mounted, "/api", ALL_WAYS),
    "mounted thrice": (mounted_thrice, "/all/api/v1", ALL_WAYS),
    "below a cached app": (below_a_cached_app, "/api/v1", ALL_WAYS),
    "mounted twice": (mounted_twice, "/v1", ALL_WAYS),
    # Starlette's url_for() gives the URL in the first mount.
    "mounted once more": (mounted_twice, "/v2", BY_NAME),
    "of a mount": (of_a_mount, "/api", ALL_WAYS),
    # Here it gives none.
    "wrapped": (wrapped, "/api", BY_NAME),
    "behind a layer": (behind_a_layer, "/api", ALL_WAYS),
    "cached outside too": (cached_outside_too, "/api", ALL_WAYS),
    "cached outside": (cached_outside, "/api", ALL_WAYS),
    "for a host": (for_a_host, "", ALL_WAYS),
    "included": (included, "/api", ALL_WAYS),
}


@pytest.mark.parametrize("by_headers", [False, True])
@pytest.mark.parametrize("root", ["", "/proxy"])
@pytest.mark.parametrize("shape", SHAPES)
async def test_a_page_is_purged_by_hand_wherever_its_app_is_mounted(shape: str, root: str, by_headers: bool) -> None:
    """By the route's name, by the path as the app has it, and by the URL as a client has it; others stay."""
    api = Api(HTTPCache(), by_headers=by_headers)
    wrap, prefix, ways = SHAPES[shape]
    app = wrap(api)
    base = root + prefix

    async def call(method: str, path: str) -> Any:
        return await ask(app, base + path, method=method, root_path=root)

    for way in ways:
        for number in (1, 2):
            await call("GET", f"/prices/{number}")
            assert_hit(await call("GET", f"/prices/{number}"))
        assert (await call("POST", f"/imports/{way}")).status_code == 200
        assert_hit(await call("GET", "/prices/2"))
        assert_miss(await call("GET", "/prices/1"))


async def test_a_cdn_is_told_of_each_path_that_a_purge_may_name() -> None:
    """A purge by name reaches what the CDN keeps of a mounted app, though its receipt has the path inside alone."""
    api = Api(HTTPCache(), by_headers=False)
    api.middleware["downstream"] = varnish_headers(VARNISH)
    outer = mounted(api)
    answer = await ask(outer, "/api/prices/1", headers=VIA)
    with capture_invalidations(api.cache) as receipts:
        await ask(outer, "/api/imports/name", method="POST")
    (purged,) = purge_of(receipts[0]).tags
    assert purged == path_key("/prices/1")
    assert {purged, path_key("/api/prices/1")} <= keys(answer)


async def test_an_app_that_no_request_has_come_to_purges_what_others_have_stored() -> None:
    """A replica does not have to have seen a request to know where its app is mounted."""
    cache = HTTPCache()
    api = Api(cache, by_headers=False)
    app = mounted(api, "/far/away")
    other = Api(cache, by_headers=False).cached
    await ask(app, "/far/away/prices/1")
    assert_hit(await ask(app, "/far/away/prices/1"))
    async with cache:
        await ask(other, "/nothing")
        await cache.invalidate_route("read_price", number=1)
    assert_miss(await ask(app, "/far/away/prices/1"))
