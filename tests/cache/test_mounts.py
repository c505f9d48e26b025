"""The middleware in the outer app, in a mounted one, in both, twice in one stack, and wrapped around from outside."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import Cookie, FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from fastapi_cacheinval import CacheMiddleware, ConfigurationError, HTTPCache, cached, invalidates
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.life import Counted, LifespanByHand, client_of, counting_app

pytestmark = pytest.mark.anyio


def sub_app(name: str, counted: Counted) -> FastAPI:
    """An app with a cached `GET /items` that says whose it is, and a `POST /items` that purges its tag."""
    app = FastAPI()

    @app.get("/items", dependencies=[cached(ttl=60, tags=["items"])])
    async def items() -> str:
        return f"{name} {counted()}"

    @app.post("/items", dependencies=[invalidates("items")])
    async def add() -> None:
        pass

    return app


def under(app: FastAPI, root_path: str) -> Any:
    """The app as a server calls it that was told a root path."""

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": root_path}, receive, send)

    return serve


async def test_the_outer_middleware_caches_what_mounted_apps_declare() -> None:
    """Policies and invalidations of a mounted app, also two levels down, work through the outer app's middleware."""
    cache = HTTPCache()
    counted = Counted()
    outer, middle = FastAPI(), FastAPI()
    outer.add_middleware(CacheMiddleware, cache=cache)
    outer.mount("/middle", middle)
    middle.mount("/inner", sub_app("inner", counted))
    async with client_of(outer) as client:
        assert_miss(await client.get("/middle/inner/items"))
        assert_hit(await client.get("/middle/inner/items"))
        assert (await client.post("/middle/inner/items")).status_code == 200
        answer = await client.get("/middle/inner/items")
        assert_miss(answer)
        assert answer.json() == "inner 2"
        await cache.invalidate_url("/middle/inner/items")
        assert_miss(await client.get("/middle/inner/items"))
    await cache.stop()


async def test_a_mounted_app_may_have_the_only_middleware() -> None:
    """It starts at its first request, since a mounted app gets no lifespan; the outer app's routes are untouched."""
    cache = HTTPCache()
    counted = Counted()
    outer, inner = FastAPI(), sub_app("inner", counted)
    inner.add_middleware(CacheMiddleware, cache=cache)
    outer.mount("/inner", inner)

    @outer.get("/plain")
    async def plain() -> str:
        return "plain"

    lifespan = LifespanByHand(outer)
    await lifespan.tell("startup")
    assert not cache.running
    async with client_of(outer) as client:
        assert "cache-status" not in (await client.get("/plain")).headers
        assert_miss(await client.get("/inner/items"))
        assert_hit(await client.get("/inner/items"))
        await client.post("/inner/items")
        assert_miss(await client.get("/inner/items"))
        await cache.invalidate_url("/inner/items")
        assert_miss(await client.get("/inner/items"))
    await cache.stop()
    await lifespan.tell("shutdown")
    await lifespan.ended()


@pytest.mark.parametrize("root_path", ["", "/proxied"])
async def test_two_mounted_apps_on_one_cache_never_answer_for_each_other(root_path: str) -> None:
    """Each with its own middleware and the same paths below its mount: the mount's prefix is part of the key."""
    cache = HTTPCache()
    counted = Counted()
    outer = FastAPI()
    for name in ("public", "admin"):
        inner = sub_app(name, counted)
        inner.add_middleware(CacheMiddleware, cache=cache)
        outer.mount(f"/{name}", inner)

    async with client_of(under(outer, root_path)) as client:
        for name in ("admin", "public", "admin", "public"):
            assert (await client.get(f"{root_path}/{name}/items")).json().startswith(name)
        assert_hit(await client.get(f"{root_path}/public/items"))
        # The path's purge reaches its own mount only; the tag, both: it is one cache.
        await cache.invalidate_url("/admin/items")
        assert_hit(await client.get(f"{root_path}/public/items"))
        assert_miss(await client.get(f"{root_path}/admin/items"))
        await cache.invalidate("items")
        assert_miss(await client.get(f"{root_path}/public/items"))
        assert_miss(await client.get(f"{root_path}/admin/items"))
    await cache.stop()


async def test_of_two_middlewares_in_outer_and_mounted_app_the_inner_one_passes_through() -> None:
    """Both have one: the outer caches, the inner's cache is never started, and a response carries one Cache-Status."""
    outer_cache, inner_cache = HTTPCache(), HTTPCache()
    counted = Counted()
    outer, inner = FastAPI(), sub_app("inner", counted)
    outer.add_middleware(CacheMiddleware, cache=outer_cache)
    inner.add_middleware(CacheMiddleware, cache=inner_cache)
    outer.mount("/inner", inner)
    async with client_of(outer) as client:
        first = await client.get("/inner/items")
        assert_miss(first)
        assert len(first.headers.get_list("cache-status")) == 1
        assert_hit(await client.get("/inner/items"))
        await client.post("/inner/items")
        assert_miss(await client.get("/inner/items"))
    assert not inner_cache.running
    assert inner_cache.statistics().responses == 0
    assert inner_cache.statistics().applied == 0
    await outer_cache.stop()


async def test_of_two_middlewares_in_one_stack_the_inner_one_passes_through() -> None:
    """Added twice by mistake: one of them caches, in requests and in the lifespan."""
    first, second = HTTPCache(), HTTPCache()
    app, counted = counting_app(first)
    app.add_middleware(CacheMiddleware, cache=second)
    lifespan = LifespanByHand(app)
    await lifespan.tell("startup")
    assert (first.running, second.running) == (False, True)
    async with client_of(app) as client:
        assert_miss(await client.get("/it"))
        hit = await client.get("/it")
        assert_hit(hit)
        assert len(hit.headers.get_list("cache-status")) == 1
        await client.put("/it")
        assert_miss(await client.get("/it"))
    assert counted.calls == 2
    assert first.statistics().responses == 0
    await lifespan.tell("shutdown")
    await lifespan.ended()


async def test_wrapped_from_outside_it_does_the_same_and_has_the_lifespan() -> None:
    """`CacheMiddleware(app)`: lifespan, hits from the front, purges, and whatever layers the app has."""
    app, counted = counting_app(middleware=False)
    wrapped = CacheMiddleware(app)
    cache = wrapped.cache
    lifespan = LifespanByHand(wrapped)
    await lifespan.tell("startup")
    assert cache.running
    async with client_of(wrapped) as client:
        assert_miss(await client.get("/it"))
        assert_hit(await client.get("/it"))
        assert cache._core.counters.hits == 1
        await client.put("/it")
        assert_miss(await client.get("/it"))
    assert counted.calls == 2
    await lifespan.tell("shutdown")
    await lifespan.ended()
    assert not cache.running


async def test_it_wraps_a_starlette_app_that_mounts_fastapi_apps() -> None:
    """The outer app need not be FastAPI's: its mounts are looked through."""
    counted = Counted()
    wrapped = CacheMiddleware(Starlette(routes=[Mount("/api", sub_app("api", counted))]))
    async with client_of(wrapped) as client:
        assert_miss(await client.get("/api/items"))
        assert_hit(await client.get("/api/items"))
        await client.post("/api/items")
        assert_miss(await client.get("/api/items"))
    await wrapped.cache.stop()


async def test_without_a_cache_given_each_middleware_makes_its_own() -> None:
    """`cache=None`: two apps share nothing, and purges of one do not concern the other."""
    (one, first), (two, second) = counting_app(), counting_app()
    async with client_of(one) as client, client_of(two) as other:
        assert_miss(await client.get("/it"))
        assert_miss(await other.get("/it"))
        await client.put("/it")
        assert_hit(await other.get("/it"))
    assert (first.calls, second.calls) == (1, 1)


async def test_what_is_no_cache_is_refused_when_the_middleware_is_made() -> None:
    """A URL or a Redis client in place of the cache is a configuration error that says what it takes."""
    with pytest.raises(ConfigurationError, match="cache is an HTTPCache"):
        CacheMiddleware(FastAPI(), cache="redis://localhost")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_an_unsound_route_of_a_mounted_app_fails_the_outer_start() -> None:
    """The audit looks into mounted apps, and names the whole path."""
    outer, inner = FastAPI(), FastAPI()
    outer.add_middleware(CacheMiddleware)
    outer.mount("/inner", inner)

    @inner.get("/mine", dependencies=[cached(ttl=60)])
    async def mine(session: Annotated[str, Cookie()] = "nobody") -> str:
        return session

    lifespan = LifespanByHand(outer)
    said = await lifespan.tell("startup")
    assert said["type"] == "lifespan.startup.failed"
    assert "/inner/mine" in said["message"]
    with pytest.raises(ConfigurationError):
        await lifespan.ended()


@pytest.mark.parametrize("path", ["/items", "/api/items"])
async def test_a_path_with_the_servers_root_path_and_without_it_are_one(path: str) -> None:
    """A path is answered with and without the root path; both spellings are one stored response and one path to purge."""
    cache = HTTPCache()
    counted = Counted()
    app = sub_app("it", counted)
    app.add_middleware(CacheMiddleware, cache=cache)
    async with client_of(under(app, "/api")) as client:
        assert_miss(await client.get(path))
        assert_hit(await client.get("/items"))
        assert_hit(await client.get("/api/items"))
        await cache.invalidate_url("/items")
        assert_miss(await client.get(path))
    assert counted.calls == 2
    await cache.stop()
