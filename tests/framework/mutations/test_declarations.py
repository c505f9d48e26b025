"""`invalidates(..., paths=False)` and `invalidates_nothing()`: what an unsafe method does not purge."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Response

from fastapi_cacheinval import (
    CacheMiddleware,
    CacheTags,
    ConfigurationError,
    HTTPCache,
    cached,
    invalidates,
    invalidates_nothing,
    purge_with_request,
)
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.mutations import Shop, ask, begin, get

pytestmark = pytest.mark.anyio


def _shop() -> Shop:
    shop = Shop()
    for path, tag in (("/items", "items"), ("/items/7", "item:7")):
        shop.app.add_api_route(path, shop.read, dependencies=[cached(ttl=60, tags=[tag])])
    return shop


async def _hits(shop: Shop) -> list[str]:
    return [path for path in ("/items", "/items/7") if await shop.kept(path)]


async def test_without_paths_only_tags_are_purged() -> None:
    """Neither the target nor its parent nor what `Location` names, but declared and added tags."""
    shop = _shop()

    @shop.app.put("/items/7", dependencies=[invalidates("other", paths=False)])
    async def write(response: Response) -> None:
        response.headers["location"] = "/items"

    @shop.app.delete("/items/7", dependencies=[invalidates(paths=False)])
    async def delete(tags: CacheTags) -> None:
        tags.add("item:7")

    await _hits(shop)
    assert (await shop.put("/items/7")).purge == "done"
    assert await _hits(shop) == ["/items", "/items/7"]
    await ask(shop.app, "DELETE", "/items/7")
    assert await _hits(shop) == ["/items"]


@pytest.mark.parametrize("where", ["router", "route"])
async def test_one_declaration_without_paths_is_enough_of_those_that_apply(where: str) -> None:
    """They unite; an outer or an inner one switches the paths off for the route."""
    shop = _shop()
    router = APIRouter(dependencies=[invalidates("a", paths=where != "router")])
    router.add_api_route(
        "/items/7", shop.read, methods=["PUT"], dependencies=[invalidates("b", paths=where != "route")]
    )
    shop.app.include_router(router)
    await _hits(shop)
    await shop.put("/items/7")
    assert await _hits(shop) == ["/items", "/items/7"]


async def test_without_paths_a_failure_purges_no_path_either() -> None:
    """An unknown outcome purges what the request may have changed, and the author has said what that is."""
    shop = _shop()

    @shop.app.put("/items/7", dependencies=[invalidates("item:7", paths=False)])
    async def write() -> None:
        raise RuntimeError

    await _hits(shop)
    with pytest.raises(RuntimeError):
        await begin(shop.app, "PUT", "/items/7").task
    assert await _hits(shop) == ["/items"]


@pytest.mark.parametrize("fails", [False, True])
async def test_a_route_that_only_reads_purges_nothing_but_facts(fails: bool) -> None:
    """A search by POST; however it ends, and whatever tags it adds."""
    shop = _shop()

    @shop.app.post("/items", dependencies=[invalidates_nothing()])
    async def search(tags: CacheTags, response: Response, fact: bool = False) -> None:
        tags.add("items")
        response.headers["surrogate-key"] = "item:7"
        response.headers["location"] = "/items/7"
        if fact:
            purge_with_request("item:7")
        if fails:
            raise RuntimeError

    async def post(target: str) -> Any:
        call = begin(shop.app, "POST", target)
        if fails:
            with pytest.raises(RuntimeError):
                await call.task
            return None
        return (await call.answer()).purge

    await _hits(shop)
    assert await post("/items") is None
    assert await _hits(shop) == ["/items", "/items/7"]
    await post("/items?fact=1")
    assert await _hits(shop) == ["/items"]


async def test_the_innermost_of_both_declarations_wins() -> None:
    """A router says one thing, a route in it the other."""
    shop = _shop()
    writes = APIRouter(dependencies=[invalidates("items")])
    writes.add_api_route("/search", shop.read, methods=["POST"], dependencies=[invalidates_nothing()])
    writes.add_api_route("/write", shop.read, methods=["POST"])
    reads = APIRouter(prefix="/reads", dependencies=[invalidates_nothing()])
    reads.add_api_route("/write", shop.read, methods=["POST"], dependencies=[invalidates("items")])
    reads.add_api_route("/search", shop.read, methods=["POST", "GET"])
    shop.app.include_router(writes)
    shop.app.include_router(reads)
    await _hits(shop)
    for target, purge in (("/search", None), ("/write", "done"), ("/reads/write", "done"), ("/reads/search", None)):
        assert (await ask(shop.app, "POST", target)).purge == purge, target


async def test_by_headers_a_route_that_only_reads_keeps_its_target() -> None:
    """The author's word for the route comes before RFC 9111 section 4.4."""
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=HTTPCache(), honour_headers=True)

    async def page() -> Response:
        return Response(b"page", headers={"cache-control": "max-age=60"})

    app.add_api_route("/page", page)
    app.add_api_route("/page", page, methods=["POST"], dependencies=[invalidates_nothing()])
    app.add_api_route("/page", page, methods=["PUT"], dependencies=[invalidates("x", paths=False)])
    await get(app, "/page")
    await ask(app, "POST", "/page")
    await ask(app, "PUT", "/page")
    assert "; hit" in (await get(app, "/page")).headers["cache-status"]
    app.add_api_route("/page", page, methods=["DELETE"])
    await ask(app, "DELETE", "/page")
    assert "; hit" not in (await get(app, "/page")).headers["cache-status"]


@pytest.mark.parametrize("order", [0, 1])
async def test_both_on_one_route_are_a_start_up_error(order: int) -> None:
    """Only one of them can be meant."""
    shop = Shop()
    both = [invalidates("items"), invalidates_nothing()]
    shop.app.add_api_route("/x", shop.read, methods=["POST"], dependencies=both[:: 1 - 2 * order])
    answer = await ask(shop.app, "POST", "/x")
    assert answer.status_code == 500
    assert b"declares both invalidates('items') and invalidates_nothing()" in answer.body


async def test_reading_is_inert_on_a_safe_route_and_without_the_middleware() -> None:
    """It says of a GET what is true of it anyway."""
    shop = _shop()
    shop.app.add_api_route("/safe", shop.read, dependencies=[cached(ttl=60), invalidates_nothing()])
    assert_miss(await shop.get("/safe"))
    assert_hit(await shop.get("/safe"))
    bare = FastAPI()
    bare.add_api_route("/x", shop.read, methods=["POST"], dependencies=[invalidates_nothing()])
    assert (await ask(bare, "POST", "/x")).status_code == 200


def test_switches_take_a_bool_and_nothing_like_one() -> None:
    """`paths="false"` would be true."""
    with pytest.raises(ConfigurationError, match="paths"):
        invalidates("a", paths="false")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="soft"):
        invalidates("a", soft=1)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="at least one tag"):
        invalidates()
    assert repr(invalidates("a", paths=False).dependency) == "invalidates('a', paths=False)"
    assert repr(invalidates_nothing().dependency) == "invalidates_nothing()"


async def test_tags_that_are_added_below_an_inherited_invalidates_nothing_are_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They are not purged, and one line at INFO says of which route."""
    shop = Shop()
    router = APIRouter(dependencies=[invalidates_nothing()])

    @router.post("/items")
    async def write(tags: CacheTags) -> None:
        tags.add("items")

    @router.post("/search")
    async def search() -> None: ...

    shop.app.include_router(router)
    with caplog.at_level("INFO", "fastapi_cacheinval"):
        for path in ("/items", "/items", "/search"):
            await ask(shop.app, "POST", path)
    told = [record.getMessage() for record in caplog.records if "invalidates_nothing" in record.getMessage()]
    assert told == ["/items adds tags, and invalidates_nothing() applies: they are not purged"]
