"""`invalidate_url` takes what `request.url_for` makes, under every kind of root path."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request
from starlette.routing import Host

from fastapi_cacheinval import HTTPCache, cached
from fastapi_cacheinval.testing import assert_hit, assert_miss, capture_invalidations
from tests.helpers.mutations import Shop, ask, get

pytestmark = pytest.mark.anyio


def _with_routes(app: FastAPI, shop: Shop, target: Any = None) -> None:
    router = APIRouter()

    @router.get("/items/{name}", name="item", dependencies=[cached(ttl=60)])
    async def item(name: str) -> int:
        return shop.read()

    @router.post("/purge/{name}")
    async def purge(name: str, request: Request) -> str:
        url = str(request.url_for(target or "item", name=name))
        await shop.cache.invalidate_url(url)
        return url

    app.include_router(router)


@pytest.mark.parametrize("name", ["7", "a b", "ü", "100%"])
@pytest.mark.parametrize("where", ["none", "server", "server that strips", "app", "both"])
async def test_a_url_of_the_request_is_purged_under_every_root_path(where: str, name: str) -> None:
    """A root path of the server's, of the app's and of both."""
    app = FastAPI()
    app.root_path = "/api/v1" if where in ("app", "both") else ""
    shop = Shop(app=app)
    _with_routes(app, shop)
    root = "" if where in ("none", "app") else "/api/v1"
    prefix = root if where in ("server", "both") else ""
    scope: dict[str, Any] = {"root_path": root}
    await get(app, f"{prefix}/items/{name}", **scope)
    await get(app, f"{prefix}/items/other", **scope)
    url = (await ask(app, "POST", f"{prefix}/purge/{name}", **scope)).json()
    assert ("/api/v1/items/" in url) is (where != "none")
    assert_miss(await get(app, f"{prefix}/items/{name}", **scope))
    assert_hit(await get(app, f"{prefix}/items/other", **scope))


@pytest.mark.parametrize("kind", ["mount", "host", "own middleware"])
async def test_a_url_of_a_mounted_apps_route_is_purged(kind: str) -> None:
    """Below a mount and a host, and where the mounted app has the middleware."""
    outer, inner = FastAPI(), FastAPI()
    shop = Shop(app=inner if kind == "own middleware" else outer)
    _with_routes(inner, shop, target=None if kind == "host" else "inner:item")
    if kind == "host":
        outer.router.routes.append(Host("shop.test", app=inner))
        _with_routes(outer, shop)
    else:
        outer.mount("/inner", inner, name="inner")
    prefix = "" if kind == "host" else "/inner"
    scope: dict[str, Any] = {"root_path": "/api"}
    await get(outer, f"/api{prefix}/items/7", **scope)
    await ask(outer, "POST", f"/api{prefix}/purge/7", **scope)
    assert_miss(await get(outer, f"/api{prefix}/items/7", **scope))


async def test_a_root_path_that_a_layer_inside_has_written_is_known() -> None:
    """A proxy names its prefix in a field, which a middleware makes the root path of."""
    app = FastAPI()

    class Prefixed:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                scope = {**scope, "root_path": "/shop"}
            await self.app(scope, receive, send)

    app.add_middleware(Prefixed)
    shop = Shop(app=app)
    _with_routes(app, shop)
    await get(app, "/items/7")
    assert "/shop/items/7" in (await ask(app, "POST", "/purge/7")).json()
    assert_miss(await get(app, "/items/7"))


async def test_a_worker_purges_each_end_of_a_whole_url() -> None:
    """It shares nothing with the app but the log, and does not know the app's root path."""
    cache = HTTPCache()
    async with cache:
        with capture_invalidations(cache) as receipts:
            await cache.invalidate_url("https://shop.test/api/items/7")
            await cache.invalidate_url("/items/7")
    assert [receipt.paths for receipt in receipts] == [("/api/items/7", "/items/7", "/7", "/"), ("/items/7",)]
