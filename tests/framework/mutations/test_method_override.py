"""A layer inside the cache may make another request of the one that came: what purges is the one that is answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Route

from fastapi_cacheinval import CacheTags, HTTPCache, cached, invalidates, purge_with_request
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.mutations import Call, Shop, ask, http_scope

pytestmark = pytest.mark.anyio


class InPlace:
    """The usual override: the method of a header, written into the scope that came."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] == "http":
            fields = dict(scope["headers"])
            scope["method"] = fields.get(b"x-method", scope["method"].encode()).decode()
            scope["path"] = fields.get(b"x-path", scope["path"].encode()).decode()
        await self.app(scope, receive, send)


class Copied(InPlace):
    """The same in a scope of its own."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        await super().__call__(dict(scope), receive, send)


class Dispatched(BaseHTTPMiddleware):
    """The same behind Starlette's own base class."""

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        """One request."""
        request.scope["method"] = request.headers.get("x-method", request.method)
        request.scope["path"] = request.headers.get("x-path", request.scope["path"])
        response: Response = await call_next(request)
        return response


LAYERS = [InPlace, Copied, Dispatched]


def _shop(layer: Any = InPlace, **options: Any) -> Shop:
    app = FastAPI()
    app.add_middleware(layer)
    shop = Shop(app=app, **options)

    @app.get("/price", dependencies=[cached(ttl=60, tags=["price"])])
    async def read() -> int:
        return shop.read()

    @app.get("/items/{number}", dependencies=[cached(ttl=60)])
    async def item(number: int) -> int:
        return shop.read()

    @app.put("/items/{number}", dependencies=[invalidates("price", "item:{number}")])
    async def write(number: int) -> str:
        shop.value += 1
        return "written"

    return shop


def _as(method: str, path: str | None = None) -> list[tuple[str, str]]:
    return [("x-method", method), *([] if path is None else [("x-path", path)])]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("outer", ["GET", "HEAD", "OPTIONS", "QUERY", "POST", "DELETE"])
async def test_a_request_that_becomes_a_put_purges_what_a_put_does(layer: Any, outer: str) -> None:
    """By tag and by path, in whichever method it came; and its answer is not kept as that of a GET."""
    shop = _shop(layer)
    assert (await shop.get("/price")).json() == 1
    await shop.get("/items/7")
    answer = await ask(shop.app, outer, "/items/7", headers=_as("PUT"))
    assert (answer.status_code, answer.purge, shop.value) == (200, "done", 2)
    page = await shop.get("/items/7")
    assert (page.json(), "; hit" in page.headers["cache-status"]) == (2, False)
    assert (await shop.get("/price")).json() == 2


@pytest.mark.parametrize("layer", LAYERS)
async def test_the_path_that_a_layer_has_written_is_purged_as_well(layer: Any) -> None:
    """GET /rpc becomes PUT /items/7."""
    shop = _shop(layer)
    await shop.get("/price")
    await shop.get("/items/7")
    assert (await shop.get("/rpc", headers=_as("PUT", "/items/7"))).purge == "done"
    assert_miss(await shop.get("/price"))
    assert_miss(await shop.get("/items/7"))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("outer", ["POST", "PUT", "DELETE"])
async def test_an_unsafe_request_that_becomes_a_read_purges_nothing(layer: Any, outer: str) -> None:
    """A query by POST that a layer makes a GET of is a read; it is not kept either."""
    shop = _shop(layer)

    @shop.app.api_route("/both", methods=["GET", "POST"], dependencies=[invalidates("price")])
    async def both(tags: CacheTags) -> int:
        tags.add("price")
        return 1

    async def plain(request: Request) -> Response:
        return Response("read")

    shop.app.router.routes.append(Route("/plain", plain))
    await shop.get("/price")
    await shop.get("/items/7")
    for target in ("/items/7", "/both", "/plain"):
        answer = await ask(shop.app, outer, target, headers=_as("GET"))
        assert (answer.status_code, answer.purge) == (200, None)
    assert_hit(await shop.get("/price"))
    assert_hit(await shop.get("/items/7"))


async def test_an_override_that_is_refused_purges_nothing() -> None:
    """A 422, a 405 and a dependency that stops the handler."""
    shop = _shop()

    async def stops() -> None:
        raise HTTPException(303, headers={"location": "/login"})

    shop.app.add_api_route("/stopped", lambda: 1, methods=["PUT"], dependencies=[invalidates("price"), Depends(stops)])
    await shop.get("/price")
    for target, method, status in (("/items/x", "PUT", 422), ("/items/7", "PATCH", 405), ("/stopped", "PUT", 303)):
        assert (await shop.get(target, headers=_as(method))).status_code == status
    assert_hit(await shop.get("/price"))


async def test_an_override_that_fails_purges() -> None:
    """An exception has an unknown outcome, in whichever method it came."""
    shop = _shop()

    @shop.app.put("/fails", dependencies=[invalidates("price")])
    async def fails() -> None:
        shop.value = 2
        raise RuntimeError

    await shop.get("/price")
    with pytest.raises(RuntimeError):
        await shop.get("/fails", headers=_as("PUT"))
    assert (await shop.get("/price")).json() == 2


async def test_an_override_waits_for_its_commit_and_may_be_joined() -> None:
    """Its answer is held as that of any mutation, and code that commits can have its tags purged with it."""
    shop = _shop()
    order: list[str] = []

    async def session() -> AsyncIterator[None]:
        yield
        shop.value = 2
        order.append("commit")

    @shop.app.put("/late", dependencies=[Depends(session)])
    async def late(tags: CacheTags) -> str:
        tags.add("price")
        assert purge_with_request("other")
        return "late"

    async def sent(message: Any) -> None:
        order.append("sent")

    await shop.get("/price")
    await Call(shop.app, http_scope("GET", "/late", headers=_as("PUT")), on_send=sent).task
    assert order[0] == "commit"
    assert (await shop.get("/price")).json() == 2


async def test_a_layer_that_commits_behind_the_route_is_waited_for() -> None:
    """The answer is held until the whole app has returned, not the route alone."""
    committed = False

    class Commits(InPlace):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            nonlocal committed
            await super().__call__(scope, receive, send)
            if scope["type"] == "http" and scope["method"] == "PUT":
                committed = True
                shop.value = 2

    shop = _shop(Commits)
    await shop.get("/price")
    seen: list[bool] = []

    async def sent(message: Any) -> None:
        seen.append(committed)

    await Call(shop.app, http_scope("GET", "/items/7", headers=_as("PUT")), on_send=sent).task
    assert seen
    assert all(seen)
    assert (await shop.get("/price")).json() == 2


async def test_an_override_in_a_mounted_app_purges_although_no_cached_route_can_have_the_path() -> None:
    """Also where the app above knows of no layer."""
    inner = FastAPI()
    inner.add_middleware(InPlace)
    shop = Shop()

    @shop.app.get("/price", dependencies=[cached(ttl=60, tags=["price"])])
    async def read() -> int:
        return shop.read()

    router = APIRouter()

    @router.delete("/things", dependencies=[invalidates("price")])
    async def delete() -> None:
        shop.value = 2

    inner.include_router(router)
    shop.app.mount("/inner", inner)
    await shop.get("/price")
    assert (await shop.get("/inner/things", headers=_as("DELETE"))).purge == "done"
    assert (await shop.get("/price")).json() == 2


@pytest.mark.parametrize("outer", ["GET", "HEAD", "OPTIONS", "POST"])
async def test_by_headers_an_override_invalidates_its_target_and_is_not_stored(outer: str) -> None:
    """A response to a PUT must not be kept for the GET that it came as."""
    shop = _shop(honour_headers=True)

    @shop.app.get("/page")
    async def page() -> Response:
        return Response(f"page {shop.value}", headers={"cache-control": "max-age=60"})

    @shop.app.put("/page")
    async def put(request: Request) -> Response:
        shop.value = 2
        return Response(b"put " + await request.body(), headers={"cache-control": "max-age=60"})

    assert (await shop.get("/page")).body == b"page 1"
    answer = await ask(shop.app, outer, "/page?x", b"body", headers=_as("PUT"))
    assert (answer.body, answer.purge) == (b"put body", "done")
    assert (await shop.get("/page")).body == b"page 2"
    assert (await shop.get("/page?x")).body == b"page 2"
    # And a read that came as a POST: the target is what RFC 9111 section 4.4 names, and nothing is stored.
    assert (await ask(shop.app, "POST", "/page", headers=_as("GET"))).body == b"page 2"
    assert "; hit" not in (await shop.get("/page")).headers["cache-status"]


async def test_refusing_mutations_while_the_log_is_away_holds_for_overrides() -> None:
    """With `mutations_when_disconnected="refuse"` the handler of an override does not run either."""
    cache = HTTPCache.from_url("redis://127.0.0.1:1", mutations_when_disconnected="refuse", redis_timeout=0.1)
    shop = _shop(cache=cache)
    try:
        assert (await shop.get("/items/7", headers=_as("PUT"))).status_code == 503
        assert shop.value == 1
    finally:
        await cache.stop()
