"""One route object reached by several ways: what holds for it is the worst of all of them."""

# No postponed annotations: the handlers name classes and callables of their own test.

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Host, Mount, Router

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.http import Answer, Call, ask, scope_of, until
from tests.helpers.layers import Names, NeedsKey
from tests.helpers.telemetry import Watched

pytestmark = pytest.mark.anyio


class Shelf:
    """A catalogue of one price, which a PUT changes once `commit` is set."""

    def __init__(self) -> None:
        self.price = 1
        self.calls = 0
        self.commit = asyncio.Event()
        self.pending: int | None = None
        self.app = FastAPI()
        self.fill(self.app)

    def fill(self, router: Any) -> None:
        @router.get("/prices", dependencies=[cached(ttl=60, tags=["prices"])])
        async def read() -> int:
            self.calls += 1
            return self.price

        @router.put("/prices", dependencies=[invalidates("prices")])
        async def write(price: int) -> str:
            self.pending = price
            return "written"

        @router.put("/prices/now", dependencies=[invalidates("prices")])
        async def write_now(price: int) -> str:
            self.price = price
            return "written"

    def committing(self, app: Any) -> Any:
        """A layer that commits what the handler has written, after the response has begun."""

        async def layer(scope: Any, receive: Any, send: Any) -> None:
            await app(scope, receive, send)
            if self.pending is not None:
                await self.commit.wait()
                self.price, self.pending = self.pending, None

        return layer


Build = Callable[[Shelf, Any], Any]


def mounted(shelf: Shelf, layer: Any) -> FastAPI:
    app = FastAPI()
    app.mount("/partners", layer(shelf.app))
    app.mount("/public", shelf.app)
    return app


def mounted_the_other_way(shelf: Shelf, layer: Any) -> FastAPI:
    app = FastAPI()
    app.mount("/public", shelf.app)
    app.mount("/partners", layer(shelf.app))
    return app


def by_mount_middleware(shelf: Shelf, layer: Any) -> FastAPI:
    return FastAPI(
        routes=[
            Mount("/partners", shelf.app, middleware=[Middleware(layer)]),
            Mount("/public", shelf.app),
        ]
    )


def by_router(shelf: Shelf, layer: Any) -> FastAPI:
    router = APIRouter()
    shelf.fill(router)
    app = FastAPI()
    app.mount("/partners", layer(router))
    app.mount("/public", router)
    return app


def by_starlette(shelf: Shelf, layer: Any) -> Starlette:
    partners = Starlette(routes=[Mount("/", shelf.app)], middleware=[Middleware(layer)])
    return Starlette(routes=[Mount("/partners", partners), Mount("/public", Router([Mount("/", shelf.app)]))])


def by_listed_routes(shelf: Shelf, layer: Any) -> FastAPI:
    partners, public = FastAPI(), FastAPI()
    partners.add_middleware(layer)
    partners.router.routes.extend(shelf.app.routes)
    public.router.routes.extend(shelf.app.routes)
    app = FastAPI()
    app.mount("/partners", partners)
    app.mount("/public", public)
    return app


def mounted_in_an_included_router(shelf: Shelf, layer: Any) -> FastAPI:
    router = APIRouter()
    router.mount("/partners", layer(shelf.app))
    app = FastAPI()
    app.include_router(router)
    app.mount("/public", shelf.app)
    return app


def in_itself(shelf: Shelf, layer: Any) -> FastAPI:
    app = FastAPI()
    app.mount("/partners", layer(app))
    router = APIRouter()
    shelf.fill(router)
    app.include_router(router)
    app.include_router(router, prefix="/public")
    return app


BUILDS: list[Build] = [
    mounted,
    mounted_the_other_way,
    by_mount_middleware,
    by_router,
    by_starlette,
    by_listed_routes,
    mounted_in_an_included_router,
    in_itself,
]
KEY = {"x-key": "alice"}


async def asked(app: Any, path: str, *, headers: Any = None, **more: Any) -> Answer:
    return await ask(app, path, headers=headers, **more)


@pytest.mark.parametrize("build", BUILDS)
async def test_no_request_without_a_key_gets_what_one_with_a_key_has_stored(build: Build) -> None:
    """After hits with the key, and hits in public, the layer still asks for the key where it stands."""
    shelf = Shelf()
    app = CacheMiddleware(build(shelf, NeedsKey))
    for _ in range(3):
        assert (await asked(app, "/partners/prices", headers=KEY)).status_code == 200
        assert (await asked(app, "/public/prices")).status_code == 200
    for _ in range(2):
        assert (await asked(app, "/partners/prices")).status_code == 401
        assert_hit(await asked(app, "/public/prices"))
        assert_hit(await asked(app, "/partners/prices", headers=KEY))
    assert shelf.calls <= 2


@pytest.mark.parametrize("build", BUILDS)
async def test_what_a_layer_writes_on_one_way_goes_to_its_caller_alone(build: Build) -> None:
    """A field for alice reaches neither bob nor the public."""
    shelf = Shelf()
    app = CacheMiddleware(build(shelf, Names))
    for _ in range(2):
        for who in ("alice", "bob"):
            answer = await asked(app, "/partners/prices", headers={"x-key": who})
            assert answer.headers["x-user"] == who
            assert "x-user" not in (await asked(app, "/public/prices", headers={"x-key": who})).headers
    assert shelf.calls <= 2


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("way", ["/partners", "/public"])
async def test_a_commit_that_comes_late_on_one_way_is_waited_for(build: Build, way: str) -> None:
    """The client of the PUT hears nothing before the commit, and the next read by either way has the new price."""
    shelf = Shelf()
    app = CacheMiddleware(build(shelf, shelf.committing))
    for path in ("/partners/prices", "/public/prices"):
        assert (await asked(app, path)).body == b"1"
    if way == "/partners":
        writing = Call(app, scope_of("/partners/prices?price=2", method="PUT"))
        await until(lambda: shelf.pending == 2, "the handler")
        assert not writing.messages
        shelf.commit.set()
        assert (await writing.answer()).headers["cacheinval-purge"] == "done"
    else:
        assert (await asked(app, "/public/prices/now?price=2", method="PUT")).status_code == 200
    for path in ("/partners/prices", "/public/prices"):
        assert (await asked(app, path)).body == b"2"


async def test_hosts_are_ways_too() -> None:
    """One app for two hosts, one of them behind a key; and once more for all others."""
    shelf = Shelf()
    routes = [Host("partners.test", NeedsKey(shelf.app)), Host("public.test", shelf.app), Mount("/", shelf.app)]
    app = CacheMiddleware(FastAPI(routes=routes))
    for _ in range(2):
        assert (await asked(app, "/prices", host="partners.test", headers=KEY)).status_code == 200
        for host in ("public.test", "other.test"):
            assert (await asked(app, "/prices", host=host)).status_code == 200
    assert (await asked(app, "/prices", host="partners.test")).status_code == 401
    assert_hit(await asked(app, "/prices", host="public.test"))


async def test_a_mount_that_chooses_by_a_header_is_asked_on_every_request() -> None:
    """Two mounts at one path, told apart by a header: neither's answer is the other's, by a front hit or otherwise."""

    class ByHeader(Mount):
        def matches(self, scope: Any) -> Any:
            match, child = super().matches(scope)
            chosen = dict(scope["headers"]).get(b"x-edition", b"").decode() == self.name
            return (match, child) if chosen else (type(match).NONE, {})

    first, second = Shelf(), Shelf()
    second.price = 2
    routes: list[BaseRoute] = [ByHeader("/v", first.app, name="one"), ByHeader("/v", second.app, name="two")]
    app = CacheMiddleware(FastAPI(routes=routes))
    for _ in range(3):
        for name, price in (("one", b"1"), ("two", b"2")):
            assert (await asked(app, "/v/prices", headers={"x-edition": name})).body == price
    assert (await asked(app, "/v/prices")).status_code == 404


@pytest.mark.parametrize("order", [("/partners", "/public"), ("/public", "/partners")])
async def test_two_caches_each_see_their_own_ways(order: tuple[str, str]) -> None:
    """One app in two outer apps: each has its own layers, whichever was asked first."""
    shelf = Shelf()
    partners, public = FastAPI(), FastAPI()
    partners.mount("/shop", NeedsKey(shelf.app))
    public.mount("/shop", shelf.app)
    apps: dict[str, Any] = {}
    for name, app in (("/partners", partners), ("/public", public)):
        app.add_middleware(CacheMiddleware, cache=HTTPCache())
        apps[name] = app
    for name in (*order, *order):
        assert (await asked(apps[name], "/shop/prices", headers=KEY)).status_code == 200
    assert (await asked(partners, "/shop/prices")).status_code == 401
    assert_hit(await asked(public, "/shop/prices"))
    assert_hit(await asked(partners, "/shop/prices", headers=KEY))


async def test_two_apps_with_one_cache_each_keep_their_own_layers() -> None:
    """A front hit of the one never answers a request of the other, though host and path are the same."""
    shelf, cache = Shelf(), HTTPCache()
    partners, public = FastAPI(), FastAPI()
    partners.mount("/shop", NeedsKey(shelf.app))
    public.mount("/shop", shelf.app)
    for app in (partners, public):
        app.add_middleware(CacheMiddleware, cache=cache)
    for _ in range(3):
        assert (await asked(public, "/shop/prices")).status_code == 200
        assert (await asked(partners, "/shop/prices", headers=KEY)).status_code == 200
    assert (await asked(partners, "/shop/prices")).status_code == 401
    assert_hit(await asked(public, "/shop/prices"))


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("root_path", ["", "/shop"])
async def test_the_route_that_telemetry_is_told_is_the_one_taken(build: Build, root_path: str) -> None:
    """On a miss and on a hit, `http.route` has the mount that the request came through, never the other's."""
    for way in ("/partners", "/public"):
        shelf, shop = Shelf(), Watched(native=False)
        app = CacheMiddleware(build(shelf, Names), shop.cache)
        for _ in range(3):
            path = f"{root_path}{way}/prices"
            assert (await asked(app, path, root_path=root_path)).body == b"1"
        points = shop.recorded.points("cacheinval.route.requests")
        # An app that is mounted in itself has ways without end: no template is said of those.
        expected = "/prices" if build is in_itself and way == "/partners" else f"{way}/prices"
        assert {point.attributes["http.route"] for point in points} == {expected}


async def test_a_layer_that_rewrites_paths_leaves_no_mount_to_tell() -> None:
    """Where the path does not say by which mount a request came, its route is told without one."""

    def rewriting(app: Any) -> Any:
        async def layer(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "path": scope["path"].replace("/fr", "", 1)}, receive, send)

        return layer

    shelf, shop = Shelf(), Watched(native=False)
    app = FastAPI()
    app.mount("/partners", rewriting(shelf.app))
    app.mount("/public", shelf.app)
    cached_app = CacheMiddleware(app, shop.cache)
    for path in ("/partners/fr/prices", "/partners/prices", "/public/prices") * 2:
        await asked(cached_app, path)
    points = shop.recorded.points("cacheinval.route.requests")
    assert {point.attributes["http.route"] for point in points} <= {"/prices", "/partners/prices", "/public/prices"}


async def test_parameters_of_one_way_alone_are_no_tag() -> None:
    """A tag that names what only one mount's path gives fails the start, since the other way has no value for it."""
    inner = FastAPI()
    inner.get("/prices", dependencies=[cached(ttl=60, tags=["shop:{shop}"])])(lambda: 1)
    app = FastAPI()
    app.mount("/shops/{shop}", inner)
    app.mount("/any", inner)
    answer = await asked(CacheMiddleware(app), "/any/prices")
    assert answer.status_code == 500
    assert b"'shop'" in answer.body
