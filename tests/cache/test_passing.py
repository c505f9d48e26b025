"""A GET for a path that no cached route can have goes on as it came; nobody notices but by its cost."""

# No postponed annotations: the handlers name classes and callables of their own test.

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Host, Mount, Route

from fastapi_cacheinval import CacheMiddleware, CacheTags, HTTPCache, cached, invalidates
from fastapi_cacheinval.routes.middleware_stack import middleware_stack_of
from fastapi_cacheinval.routes.table import RouteTable
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.http import Call, ask, scope_of

pytestmark = pytest.mark.anyio


def page() -> str:
    return "page"


class Raw:
    """An endpoint that keeps what it is handed, and answers."""

    handed: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        Raw.handed = receive
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"raw"})


def table_of(app: Any) -> RouteTable:
    inside = middleware_stack_of(app)
    return RouteTable(inside.app, inside)


@pytest.mark.parametrize(("path", "passes"), [("/raw", True), ("/items/raw", False)])
async def test_it_is_handed_what_the_server_gave(path: str, passes: bool) -> None:
    """The very `receive`, where a path cannot be that of a cached route; the framework wraps each `send` itself."""
    app = FastAPI()
    app.get("/items/{item}/page", dependencies=[cached(ttl=60)])(page)
    app.router.routes.append(Route(path, Raw()))
    cache = CacheMiddleware(app, cache=HTTPCache())
    await ask(cache, path)
    call = Call(cache, scope_of(path))
    assert (await call.answer()).body == b"raw"
    assert (Raw.handed == call._receive) is passes


async def test_what_reads_the_exchange_finds_one_that_does_nothing() -> None:
    """`invalidates()` of the app is inert on a GET, tags go nowhere, and nothing stays in the scope."""
    app = FastAPI(dependencies=[invalidates("everything")])

    @app.get("/plain")
    async def plain(tags: CacheTags, request: Request) -> str:
        tags.add("one")
        return "plain"

    @app.get("/cached", dependencies=[cached(ttl=60)])
    async def kept() -> str:
        return "cached"

    cache = CacheMiddleware(app, cache=HTTPCache())
    for _ in range(2):
        scope = scope_of("/plain")
        answer = await Call(cache, scope).answer()
        assert (answer.status_code, answer.body) == (200, b'"plain"')
        assert answer.cache is None
        assert "fastapi_cacheinval" not in scope
    assert_miss(await ask(cache, "/cached"))
    assert_hit(await ask(cache, "/cached"))


async def test_a_route_that_is_added_later_is_cached_from_its_first_use() -> None:
    """On the app, and in a router that was included before."""
    app, router = FastAPI(), APIRouter()
    app.include_router(router, prefix="/r")
    cache = CacheMiddleware(app, cache=HTTPCache())
    assert (await ask(cache, "/late")).status_code == 404
    app.get("/late", dependencies=[cached(ttl=60)])(page)
    router.get("/late", dependencies=[cached(ttl=60)])(page)
    for path in ("/late", "/r/late"):
        assert_miss(await ask(cache, path))
        assert_hit(await ask(cache, path))


async def test_a_policy_that_an_override_brings_is_found_at_its_second_use() -> None:
    """The first goes uncached; from then on every path is looked at."""

    def nothing() -> None:
        pass

    app = FastAPI()
    app.get("/it", dependencies=[Depends(nothing)])(page)
    cache = CacheMiddleware(app, cache=HTTPCache())

    def brings(it: Annotated[None, cached(ttl=60)]) -> None:
        pass

    app.dependency_overrides[nothing] = brings
    assert (await ask(cache, "/it")).cache is None
    assert_miss(await ask(cache, "/it"))
    assert_hit(await ask(cache, "/it"))


async def test_below_a_root_path_every_request_is_looked_at() -> None:
    """The server's, or that of a mount above the middleware: the path is not yet the route's."""
    inner = FastAPI()
    inner.get("/it", dependencies=[cached(ttl=60)])(page)
    wrapped = CacheMiddleware(inner, cache=HTTPCache())
    outer = FastAPI()
    outer.mount("/deep", wrapped)
    assert_miss(await ask(outer, "/deep/it"))
    assert_hit(await ask(outer, "/deep/it"))
    assert (await ask(wrapped, "/root/it", root_path="/root")).cache is not None


def test_what_begins_like_a_cached_path_is_looked_at() -> None:
    """Up to the first parameter, with the prefixes of includes and mounts; the shortest stands for the rest."""
    app, router, inner = FastAPI(), APIRouter(prefix="/r"), FastAPI()
    app.get("/a/{x}/b", dependencies=[cached(ttl=60)])(page)
    app.get("/a/c", dependencies=[cached(ttl=60)])(page)
    app.get("/plain")(page)
    app.get("/off", dependencies=[cached(ttl=0)])(page)
    router.get("/it", dependencies=[cached(ttl=60)])(page)
    app.include_router(router, prefix="/p")
    inner.get("/it", dependencies=[cached(ttl=60)])(page)
    app.mount("/m", inner)
    app.router.routes.append(Host("{name}.example", FastAPI()))
    table = table_of(app)
    looked_at = ["/a/", "/a/1/b", "/a/c", "/p/r/it", "/p/r/items", "/m/it"]
    assert [path for path in looked_at if table.passes(path)] == []
    passing = ["/", "/a", "/plain", "/off", "/p/r", "/m/", "/m", "/openapi.json", "/A/1"]
    assert [path for path in passing if not table.passes(path)] == []


def test_an_app_without_any_policy_lets_everything_pass() -> None:
    """And one whose cached paths are all parameters looks at everything."""
    app = FastAPI()
    app.get("/plain")(page)
    assert table_of(app).passes("/plain")
    app.get("/{anything}", dependencies=[cached(ttl=60)])(page)
    assert not table_of(app).passes("/plain")


class Rewriting(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        return await call_next(request)


class Elsewhere(Route):
    def matches(self, scope: Any) -> Any:
        return super().matches({**scope, "path": "/it"})


def test_where_paths_do_not_tell_everything_is_looked_at() -> None:
    """A layer that may rewrite paths, a route that matches in its own way, an app with a root path, too many paths."""

    def app_of(root_path: str = "") -> FastAPI:
        app = FastAPI()
        app.root_path = root_path
        app.get("/it", dependencies=[cached(ttl=60)])(page)
        return app

    layered, matching, mounted, many = app_of(), app_of(), FastAPI(), FastAPI()
    layered.add_middleware(Rewriting)
    matching.router.routes.append(Elsewhere("/x", page))
    mounted.mount("/m", app_of("/api"))
    between = FastAPI(routes=[Mount("/m", app=Rewriting(app_of()))])
    for number in range(40):
        many.get(f"/{number}/it", dependencies=[cached(ttl=60)])(page)
    assert table_of(app_of()).passes("/other")
    for app in (layered, matching, app_of("/api"), mounted, between, many):
        assert not table_of(app).passes("/other")
