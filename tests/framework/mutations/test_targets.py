"""Which paths a mutation purges: its target, the parent collection, `Location` and `Content-Location`."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Header, Request, Response

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates
from fastapi_cacheinval.testing import capture_invalidations
from tests.helpers.mutations import Shop, ask, get

pytestmark = pytest.mark.anyio


def _pages(app: Any, *paths: str) -> None:
    """Cached GETs that count how often they were made."""
    for path in paths:
        app.add_api_route(path, _counting(), dependencies=[cached(ttl=60)])


def _counting() -> Any:
    made = 0

    async def page() -> int:
        nonlocal made
        made += 1
        return made

    return page


async def _changed(app: Any, *targets: str, **scope: Any) -> set[str]:
    """Which of these are not answered from the cache now."""
    return {target for target in targets if "; hit" not in (await get(app, target, **scope)).headers["cache-status"]}


async def test_the_target_path_and_its_parent_collection_are_purged() -> None:
    """PUT /products/7 purges /products/7 and /products, and nothing above, beside or below."""
    shop = Shop()
    everything = ("/products/{number}", "/products", "/", "/products/{number}/reviews", "/orders")
    _pages(shop.app, *everything)

    @shop.app.put("/products/{number}")
    async def write(number: int) -> None: ...

    targets = ("/products/7", "/products/8", "/products", "/", "/products/7/reviews", "/orders")
    await _changed(shop.app, *targets)
    assert (await shop.put("/products/7")).purge == "done"
    assert await _changed(shop.app, *targets) == {"/products/7", "/products"}


async def test_the_parent_of_a_top_level_path_is_the_root() -> None:
    """POST /products purges / where that is a cached page."""
    shop = Shop()
    _pages(shop.app, "/", "/products")

    @shop.app.post("/products")
    async def write() -> None: ...

    await _changed(shop.app, "/", "/products")
    await ask(shop.app, "POST", "/products")
    assert await _changed(shop.app, "/", "/products") == {"/", "/products"}


@pytest.mark.parametrize("target", ["/products/7", "/products/7/"])
async def test_both_spellings_of_the_slash_are_purged(target: str) -> None:
    """Whichever the mutation came by, with the slash at the end or without."""
    app = FastAPI(redirect_slashes=False)
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    _pages(app, "/products/7", "/products/7/", "/products", "/products/")

    async def write() -> None: ...

    app.put(target)(write)
    targets = ("/products/7", "/products/7/", "/products", "/products/")
    await _changed(app, *targets)
    await ask(app, "PUT", target)
    assert await _changed(app, *targets) == set(targets)


async def test_paths_without_a_cached_get_are_not_purged() -> None:
    """No line in the log for a path where nothing can be kept: no GET, a GET without a policy, one that is switched off."""
    shop = Shop()

    @shop.app.put("/only-put/{number}")
    @shop.app.put("/plain/{number}")
    @shop.app.put("/off/{number}")
    async def write(number: int) -> None: ...

    @shop.app.get("/plain/{number}")
    async def plain(number: int) -> None: ...

    @shop.app.get("/off/{number}", dependencies=[cached(ttl=0)])
    async def off(number: int) -> None: ...

    for path in ("/only-put/1", "/plain/1", "/off/1"):
        assert (await shop.put(path)).purge is None
    assert shop.cache.statistics().purges == {}


async def test_all_queries_variants_and_hosts_of_the_path_are_purged() -> None:
    """A path is one thing, however it was asked for."""
    shop = Shop()
    made = 0

    @shop.app.get("/list", dependencies=[cached(ttl=60)])
    async def page(page: int = 1, accept_language: str = Header("en")) -> int:
        nonlocal made
        made += 1
        return made

    @shop.app.post("/list")
    async def write() -> None: ...

    ways: list[tuple[str, dict[str, Any]]] = [
        ("/list", {}),
        ("/list?page=2", {}),
        ("/list", {"headers": [("accept-language", "de")]}),
        ("/list", {"host": "other.test"}),
        ("/list", {"scheme": "https"}),
    ]
    for target, scope in ways:
        await shop.get(target, **scope)
    assert made == len(ways)
    await ask(shop.app, "POST", "/list?page=9", host="third.test")
    for target, scope in ways:
        await shop.get(target, **scope)
    assert made == 2 * len(ways)


async def test_a_decoded_path_is_what_counts() -> None:
    """Paths with spaces, non-ASCII letters and per cent signs are purged as handlers see them."""
    shop = Shop()
    _pages(shop.app, "/things/{name}")

    @shop.app.put("/things/{name}")
    async def write(name: str) -> None: ...

    for name in ("café", "a b", "100%", "%41", "a?b", "ä" * 600):
        target = f"/things/{name}"
        if "?" in name:
            continue
        await _changed(shop.app, target)
        assert (await shop.put(target)).purge == "done"
        assert await _changed(shop.app, target) == {target}


@pytest.mark.parametrize("field", ["location", "content-location"])
@pytest.mark.parametrize(
    ("value", "purged"),
    [
        ("/orders/7", True),
        ("/orders/7?from=cart#top", True),
        ("http://shop.test/orders/7", True),
        ("https://shop.test/orders/7", True),
        ("http://SHOP.test/orders/7", True),
        ("http://shop.test:80/orders/7", True),
        ("//shop.test/orders/7", True),
        ("orders/7", True),
        ("/orders/%37", True),
        (" /orders/7\t ", True),
        ("http://other.test/orders/7", False),
        ("http://shop.test:8080/orders/7", False),
        ("http://shop.test.evil/orders/7", False),
        ("http://[", False),
        ("/elsewhere", False),
        ("", False),
    ],
)
async def test_same_origin_locations_are_purged(field: str, value: str, purged: bool) -> None:
    """What a response says it has made or changed, by whatever reference, but never another origin's paths."""
    shop = Shop()
    _pages(shop.app, "/orders/7", "/orders")

    @shop.app.post("/checkout")
    async def checkout() -> Response:
        return Response(status_code=201, headers={field: value})

    await _changed(shop.app, "/orders/7", "/orders")
    await ask(shop.app, "POST", "/checkout")
    changed = await _changed(shop.app, "/orders/7", "/orders")
    assert changed == ({"/orders/7", "/orders"} if purged else set())


@pytest.mark.parametrize("where", ["app", "server", "both", "proxy strips"])
async def test_a_root_path_is_no_part_of_what_is_purged(where: str) -> None:
    """Behind a prefix, whoever knows of it, the same paths are purged, by target and by `Location`."""
    app = FastAPI()
    app.root_path = "/api" if where != "server" else ""
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    _pages(app, "/products/{number}", "/products", "/orders/7")

    @app.put("/products/{number}")
    async def write(number: int) -> Response:
        return Response(headers={"location": "/api/orders/7"})

    prefix = "" if where == "proxy strips" else "/api"
    scope: dict[str, Any] = {"root_path": "/api" if where in ("server", "both") else ""}
    targets = tuple(prefix + path for path in ("/products/7", "/products", "/orders/7"))
    await _changed(app, *targets, **scope)
    assert await _changed(app, *targets, **scope) == set()
    assert (await ask(app, "PUT", targets[0], **scope)).purge == "done"
    assert await _changed(app, *targets, **scope) == set(targets)


async def test_paths_of_mounted_apps_are_purged() -> None:
    """A mutation of a mounted app purges the mounted app's pages, from inside it and by `Location` from outside."""
    shop = Shop()
    inner = FastAPI()
    _pages(inner, "/products/{number}", "/products")
    _pages(shop.app, "/products/{number}")

    @inner.put("/products/{number}")
    async def write(number: int) -> None: ...

    @shop.app.post("/import")
    async def load() -> Response:
        return Response(headers={"location": "/inner/products/7"})

    shop.app.mount("/inner", inner)
    targets = ("/inner/products/7", "/inner/products", "/products/7")
    await _changed(shop.app, *targets)
    await shop.put("/inner/products/7")
    assert await _changed(shop.app, *targets) == {"/inner/products/7", "/inner/products"}
    await ask(shop.app, "POST", "/import")
    assert await _changed(shop.app, *targets) == {"/inner/products/7", "/inner/products"}


async def test_the_middleware_of_a_mounted_app_purges_its_paths() -> None:
    """Added to the mounted app alone, it knows its pages by their own paths."""
    inner, outer = FastAPI(), FastAPI()
    inner.add_middleware(CacheMiddleware, cache=HTTPCache())
    _pages(inner, "/products/{number}", "/products")

    @inner.put("/products/{number}")
    async def write(number: int) -> None: ...

    outer.mount("/inner", inner)
    targets = ("/inner/products/7", "/inner/products")
    await _changed(outer, *targets)
    assert await _changed(outer, *targets) == set()
    await ask(outer, "PUT", "/inner/products/7")
    assert await _changed(outer, *targets) == set(targets)


async def test_a_router_included_twice_purges_each_of_its_places_by_itself() -> None:
    """/v1 and /v2 are two resources."""
    shop = Shop()
    router = APIRouter()
    router.add_api_route("/products/{number}", _counting(), dependencies=[cached(ttl=60)])

    @router.put("/products/{number}")
    async def write(number: int) -> None: ...

    shop.app.include_router(router, prefix="/v1")
    shop.app.include_router(router, prefix="/v2")
    await _changed(shop.app, "/v1/products/7", "/v2/products/7")
    await shop.put("/v1/products/7")
    assert await _changed(shop.app, "/v1/products/7", "/v2/products/7") == {"/v1/products/7"}


async def test_a_path_rewritten_inside_ours_is_purged_in_both_spellings() -> None:
    """The target as it came and the path that the route saw."""
    app = FastAPI()
    cache = HTTPCache()
    _pages(app, "/products/7")

    class Rewrites:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and scope["path"] == "/public/7":
                scope["path"] = "/products/7"
            await self.app(scope, receive, send)

    @app.put("/products/{number}")
    async def write(number: int) -> None: ...

    app.add_middleware(Rewrites)
    app.add_middleware(CacheMiddleware, cache=cache)
    await _changed(app, "/public/7")
    assert await _changed(app, "/public/7") == set()
    await ask(app, "PUT", "/public/7")
    assert await _changed(app, "/public/7") == {"/public/7"}


async def test_a_purge_of_paths_names_them_in_its_receipt() -> None:
    """The receipt has the paths as routes see them, and the tags apart."""
    shop = Shop()
    _pages(shop.app, "/products/{number}", "/products")

    @shop.app.delete("/products/{number}")
    async def remove(number: int, request: Request) -> Response:
        return Response(status_code=204, headers={"surrogate-key": "stock"})

    with capture_invalidations(shop.cache) as receipts:
        await ask(shop.app, "DELETE", "/products/7")
    (receipt,) = receipts
    assert receipt.tags == ("stock",)
    assert set(receipt.paths) >= {"/products/7", "/products"}
    assert not receipt.soft


REACH: dict[Any, set[str]] = {
    True: {"/products/7", "/products", "/other/1", "/other"},
    "target": {"/products/7", "/other/1"},
    False: set(),
}


@pytest.mark.parametrize("path_purges", REACH, ids=str)
async def test_how_far_the_purge_of_paths_goes_is_a_setting_of_the_cache(path_purges: Any) -> None:
    """The collection as well, what is named alone, or nothing; tags are purged all the same."""
    app, cache = FastAPI(), HTTPCache(path_purges=path_purges)
    app.add_middleware(CacheMiddleware, cache=cache)
    _pages(app, "/products/{number}", "/products", "/other/{number}", "/other")
    app.add_api_route("/tagged", _counting(), dependencies=[cached(ttl=60, tags=["product:7"])])

    @app.put("/products/{number}", dependencies=[invalidates("product:{number}")])
    async def write(number: int, response: Response) -> None:
        response.headers["location"] = "/other/1"

    targets = ("/products/7", "/products", "/other/1", "/other", "/tagged")
    await _changed(app, *targets)
    assert (await ask(app, "PUT", "/products/7")).headers["cacheinval-purge"] == "done"
    assert await _changed(app, *targets) == REACH[path_purges] | {"/tagged"}


@pytest.mark.parametrize("path_purges", [True, "target", False], ids=str)
async def test_by_headers_the_target_is_purged_whatever_the_setting_says(path_purges: Any) -> None:
    """RFC 9111 section 4.4 does not leave it open."""
    app, cache = FastAPI(), HTTPCache(path_purges=path_purges)
    app.add_middleware(CacheMiddleware, cache=cache, honour_headers=True)

    @app.get("/it")
    async def it(response: Response) -> None:
        response.headers["cache-control"] = "max-age=60"

    @app.put("/it")
    async def write() -> None: ...

    await _changed(app, "/it")
    assert await _changed(app, "/it") == set()
    assert (await ask(app, "PUT", "/it")).status_code == 200
    assert await _changed(app, "/it") == {"/it"}
