"""`invalidate_route` purges what is stored of a route, by its name and parameters."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, FastAPI, Query
from pydantic import AfterValidator
from starlette.responses import PlainTextResponse

from fastapi_cacheinval import CacheMiddleware, CacheNotRunning, ConfigurationError, HTTPCache, UnknownRoute, cached
from fastapi_cacheinval.testing import assert_hit, assert_miss, assert_stale, capture_invalidations
from tests.helpers.http import Shop, ask, lifespan_of

pytestmark = pytest.mark.anyio


class Colour(Enum):
    RED = "red"


def _known(value: str) -> str:
    return {"a": "1"}[value]


def _shop(**options: Any) -> Shop:
    shop = Shop(**options)
    router = APIRouter()

    @shop.app.get("/products/{product_id}", dependencies=[cached(ttl=60, tags=["product:{product_id}", "products"])])
    async def read_product(product_id: int, lang: str = "en") -> int:
        return shop.count()

    @router.get("/{name:path}", dependencies=[cached(ttl=60)], name="file")
    async def read_file(name: str) -> int:
        return shop.count()

    @shop.app.get("/colours/{colour}", dependencies=[cached(ttl=60, tags=["colour:{colour}"])])
    async def read_colour(colour: Colour) -> int:
        return shop.count()

    @shop.app.get("/days/{day}", dependencies=[cached(ttl=60, tags=["day:{day}"])])
    async def read_day(day: datetime) -> int:
        return shop.count()

    @shop.app.put("/products/{product_id}")
    async def update_product(product_id: int) -> None: ...

    @shop.app.get("/listed", dependencies=[cached(ttl=60, tags=["soft:{soft}"], stale_while_revalidate=60)])
    async def listed(soft: int = 0, many: Annotated[list[int] | None, Query(alias="m")] = None) -> int:
        return shop.count()

    shop.app.include_router(router, prefix="/files")
    return shop


async def test_a_route_is_purged_by_its_name() -> None:
    """All queries and spellings of the parameters' page go, and no other page of the route does."""
    shop = _shop()
    for path in ("/products/42", "/products/042", "/products/42?lang=de", "/products/7"):
        await shop.ask(path)
    receipt = await shop.cache.invalidate_route("read_product", product_id=42)
    assert receipt.tags[0] == "product:42"
    assert "products" not in receipt.tags
    for path in ("/products/42", "/products/042", "/products/42?lang=de"):
        assert_miss(await shop.ask(path))
    assert_hit(await shop.ask("/products/7"))


@pytest.mark.parametrize(
    ("name", "parameters", "path"),
    [
        ("read_product", {"product_id": "42"}, "/products/42"),
        ("file", {"name": "a b/ü.txt"}, "/files/a b/ü.txt"),
        ("read_colour", {"colour": Colour.RED}, "/colours/red"),
        ("read_colour", {"colour": "red"}, "/colours/red"),
        ("read_day", {"day": datetime(2026, 1, 2, 3, tzinfo=UTC)}, "/days/2026-01-02T03:00:00Z"),
        ("read_day", {"day": "2026-01-02T03:00:00Z"}, "/days/2026-01-02 03:00:00+00:00"),
        ("read_product", {"product_id": 42, "lang": "de"}, "/products/42?lang=de"),
        ("listed", {"soft": 3}, "/listed?soft=3"),
        ("listed", {"m": [1, 2]}, "/listed?m=1&m=2"),
    ],
)
async def test_values_are_given_as_the_handler_has_them_or_as_a_url_has_them(
    name: str, parameters: dict[str, Any], path: str
) -> None:
    """Numbers, enums, moments, lists and their texts all name the page that they stand for."""
    shop = _shop()
    await shop.ask(path)
    assert_hit(await shop.ask(path))
    await shop.cache.invalidate_route(name, parameters)
    assert_miss(await shop.ask(path))


async def test_a_soft_purge_of_a_route_leaves_it_stale() -> None:
    """`soft=True` is this call's own; a parameter of that name stands in the mapping."""
    shop = _shop()
    await shop.ask("/listed?soft=3")
    receipt = await shop.cache.invalidate_route("listed", {"soft": 3}, soft=True)
    assert receipt.soft
    assert_stale(await shop.ask("/listed?soft=3"))


@pytest.mark.parametrize("value", ["x", "", "\udc80", "a/b?c#d", "9" * 5000, "\x00", True, -1.5], ids=ascii)
async def test_a_value_of_a_client_never_raises(value: object) -> None:
    """What the route would refuse is stored nowhere: its path is purged, and nothing else is."""
    shop = _shop()
    await shop.ask("/products/42")
    with capture_invalidations(shop.cache) as receipts:
        await shop.cache.invalidate_route("read_product", product_id=value)
    assert len(receipts) == 1
    assert_hit(await shop.ask("/products/42"))


async def test_a_validator_that_raises_anything_leaves_the_path_and_the_other_tags() -> None:
    """The route answers no such value, so nothing is stored with its tag; the app itself answers as ever."""
    shop = Shop()

    @shop.app.get("/v/{number}", dependencies=[cached(ttl=60, tags=["value:{x}", "number:{number}"])], name="v")
    async def read(number: int, x: Annotated[str, AfterValidator(_known)] = "a") -> str:
        return x

    assert (await shop.ask("/v/1?x=a")).status_code == 200
    with pytest.raises(KeyError, match="boom"):
        await shop.ask("/v/1?x=boom")
    for url, result in (("/v/1?x=boom", "bypass"), ("/v/1?x=a", "hit")):
        assert (await shop.cache.explain(url, base_url="http://test")).result == result
    receipt = await shop.cache.invalidate_route("v", number=1, x="boom")
    assert (receipt.tags, receipt.paths) == (("number:1",), ("/v/1",))


@pytest.mark.parametrize(
    ("name", "parameters", "said"),
    [
        (
            "read_products",
            {"product_id": 1},
            "No route that answers GET is called 'read_products'. Near: 'read_product'",
        ),
        ("zzz", {}, "Near: "),
        ("update_product", {"product_id": 1}, "'read_product'"),
        ("read_product", {}, "'read_product' (/products/{product_id}) needs the parameter 'product_id'"),
        ("read_product", {"product_id": None}, "needs the parameter 'product_id'"),
        ("read_product", {"product_id": 1, "lnag": "de"}, "has no parameter 'lnag'; it takes: product_id, lang"),
    ],
)
async def test_a_wrong_name_or_parameter_says_what_there_is(name: str, parameters: dict[str, Any], said: str) -> None:
    """The author's slip is an error, and purges nothing."""
    shop = _shop()
    await shop.ask("/products/1")
    with capture_invalidations(shop.cache) as receipts, pytest.raises(UnknownRoute) as caught:
        await shop.cache.invalidate_route(name, parameters)
    assert said in str(caught.value)
    assert caught.value.name == name
    assert not receipts


@pytest.mark.parametrize(("given", "said"), [(_shop, "write '_shop'"), (42, "not 42")])
async def test_a_route_is_named_by_a_text(given: Any, said: str) -> None:
    """A handler in its place is told its name."""
    shop = _shop()
    await shop.ask("/products/1")
    with pytest.raises(ConfigurationError, match=f"the name of a route.*{said}"):
        await shop.cache.invalidate_route(given, product_id=1)
    with pytest.raises(ConfigurationError, match=f"a route's name.*{said}"):
        await shop.cache.warm([given])


async def test_without_an_app_the_error_says_what_else_to_call() -> None:
    """A worker does not know the routes; neither does a process whose app has not started."""
    shop = _shop()
    async with shop.cache:
        with pytest.raises(CacheNotRunning, match=r"invalidate\(\) and invalidate_url\(\)"):
            await shop.cache.invalidate_route("read_product", product_id=1)


async def test_a_route_added_later_and_one_that_is_included_twice_are_known() -> None:
    """All routes of a name that take the parameters are meant, wherever they stand."""
    shop = _shop()
    await shop.ask("/products/1")
    router = APIRouter()

    @router.get("/pages/{page}", dependencies=[cached(ttl=60)])
    async def read_page(page: int) -> int:
        return shop.count()

    shop.app.include_router(router, prefix="/a")
    shop.app.include_router(router, prefix="/b/{shelf}")
    paths = ("/a/pages/1", "/b/x/pages/1", "/b/y/pages/1")
    for path in paths:
        await shop.ask(path)
    await shop.cache.invalidate_route("read_page", page=1)
    assert_miss(await shop.ask(paths[0]))
    assert_hit(await shop.ask(paths[1]))
    with pytest.raises(UnknownRoute):
        await shop.cache.invalidate_route("read_page", shelf="x")
    await shop.cache.invalidate_route("read_page", page=1, shelf="x")
    assert_miss(await shop.ask(paths[1]))
    assert_hit(await shop.ask(paths[2]))


@pytest.mark.parametrize("root", ["", "/api"])
async def test_routes_of_mounted_apps_and_below_a_root_path_are_purged(root: str) -> None:
    """The name is that of the route itself, the parameters those of all that stands above it."""
    shop, inner = _shop(), FastAPI()

    @inner.get("/things/{thing}", dependencies=[cached(ttl=60)])
    async def read_thing(thing: int) -> int:
        return shop.count()

    shop.app.mount("/shops/{shop_id}", inner)
    path = f"{root}/shops/7/things/1"
    await shop.ask(path, root_path=root)
    assert_hit(await shop.ask(path, root_path=root))
    await shop.cache.invalidate_route("read_thing", shop_id=7, thing=1)
    assert_miss(await shop.ask(path, root_path=root))


async def test_by_headers_a_route_without_a_policy_is_purged_by_its_path() -> None:
    """The responses that headers have stored carry their path."""
    shop = Shop(middleware={"honour_headers": True})

    @shop.app.get("/pages/{page}")
    async def read_page(page: int) -> PlainTextResponse:
        return PlainTextResponse(str(shop.count()), headers={"cache-control": "max-age=60"})

    await shop.ask("/pages/1")
    assert_hit(await shop.ask("/pages/1"))
    await shop.cache.invalidate_route("read_page", page=1)
    assert_miss(await shop.ask("/pages/1"))


async def test_each_app_of_a_cache_that_has_the_route_is_meant() -> None:
    """Two apps of one cache may have a route of the same name; a third without it does not matter."""
    cache, apps, calls = HTTPCache(), [FastAPI(), FastAPI(), FastAPI()], [0]
    for number, app in enumerate(apps):
        app.add_middleware(CacheMiddleware, cache=cache)
        if number < 2:

            @app.get(f"/{number}/pages/{{page}}", dependencies=[cached(ttl=60)])
            async def read_page(page: int) -> int:
                calls[0] += 1
                return calls[0]

    async with lifespan_of(apps[0]), lifespan_of(apps[1]), lifespan_of(apps[2]):
        for number in (0, 1):
            await ask(apps[number], f"/{number}/pages/1")
        await cache.invalidate_route("read_page", page=1)
        for number in (0, 1):
            assert_miss(await ask(apps[number], f"/{number}/pages/1"))
