"""Middleware inside the cache: what may be skipped by a front hit, what never is, and what the start-up log says of it."""

from __future__ import annotations

import logging
from typing import Annotated, Any

import pytest
from fastapi import Cookie, Depends, FastAPI
from fastapi.security import APIKeyHeader
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.life import Counted, LifespanByHand, client_of

pytestmark = pytest.mark.anyio

KEY = {"x-api-key": "right"}


class ApiKey:
    """Pure ASGI middleware that lets only those pass who have the key, and counts them."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.asked = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and dict(scope["headers"]).get(b"x-api-key") != b"right":
            await PlainTextResponse("no key", status_code=401)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class ApiKeyByDispatch(BaseHTTPMiddleware):
    """The same in the way of Starlette's base class."""

    async def dispatch(self, request: Any, call_next: Any) -> Any:
        if request.headers.get("x-api-key") != "right":
            return PlainTextResponse("no key", status_code=401)
        return await call_next(request)


class TrustedHostWithKey(TrustedHostMiddleware):
    """A subclass of a harmless one, which may do anything."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await ApiKey(super().__call__)(scope, receive, send)


def app_of(*inside: Any, cache: HTTPCache | None = None, **options: Any) -> tuple[FastAPI, Counted]:
    """An app with a cached page, these middlewares inside the cache's, and how often its handler ran."""
    app, counted = FastAPI(), Counted()
    for kind in inside:
        app.add_middleware(kind)
    app.add_middleware(CacheMiddleware, cache=cache, **options)

    @app.get("/page", dependencies=[cached(ttl=60)])
    async def page() -> int:
        return counted()

    return app, counted


@pytest.mark.parametrize("kind", [ApiKey, ApiKeyByDispatch, TrustedHostWithKey])
async def test_an_api_key_middleware_inside_answers_401_cold_and_warm(kind: Any) -> None:
    """Who has no key gets none of the page, cached or not; who has one gets a route hit behind it."""
    cache = HTTPCache()
    app, counted = app_of(kind, cache=cache)
    async with client_of(app) as client:
        assert (await client.get("/page")).status_code == 401
        assert_miss(await client.get("/page", headers=KEY))
        assert_hit(await client.get("/page", headers=KEY))
        for _ in range(3):
            refused = await client.get("/page")
            assert (refused.status_code, refused.text) == (401, "no key")
            assert "cache-status" not in refused.headers
    assert counted.calls == 1
    assert cache._core.counters.hits == 0
    await cache.stop()


async def test_front_true_is_the_authors_word_for_what_is_inside() -> None:
    """`front=True` serves the warm page without asking the middleware: that is what it says."""
    cache = HTTPCache()
    app, counted = app_of(ApiKey, cache=cache, front=True)
    async with client_of(app) as client:
        assert_miss(await client.get("/page", headers=KEY))
        assert_hit(await client.get("/page"))
    assert (counted.calls, cache._core.counters.hits) == (1, 1)
    await cache.stop()


async def test_front_true_does_not_open_what_the_route_itself_closes() -> None:
    """A guarded route, and one that is `shared=True` behind a scheme, are never served from the front."""
    cache = HTTPCache()
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache, front=True)
    key = APIKeyHeader(name="x-key")

    @app.get("/guarded", dependencies=[cached(ttl=60, guarded_by=key)])
    async def guarded() -> str:
        return "guarded"

    @app.get("/shared", dependencies=[cached(ttl=60, shared=True), Depends(key)])
    async def shared() -> str:
        return "shared"

    async with client_of(app) as client:
        for path in ("/guarded", "/shared"):
            assert (await client.get(path, headers={"x-key": "1"})).status_code == 200
            assert_hit(await client.get(path, headers={"x-key": "1"}))
        assert (await client.get("/guarded")).status_code == 401
    assert cache._core.counters.hits == 0
    await cache.stop()


async def test_front_false_never_serves_from_the_front() -> None:
    """With nothing inside and `front=False`, hits come from the route lookup, and dependencies outside run."""
    cache = HTTPCache()
    app, _ = app_of(cache=cache, front=False)
    async with client_of(app) as client:
        await client.get("/page")
        assert_hit(await client.get("/page"))
    assert cache._core.counters.hits == 0
    await cache.stop()


async def test_harmless_middleware_inside_leaves_the_front_on() -> None:
    """GZip, CORS and TrustedHost may be skipped: the second request is a front hit."""
    cache = HTTPCache()
    app, counted = FastAPI(), Counted()
    app.add_middleware(GZipMiddleware)
    app.add_middleware(CORSMiddleware, allow_origins=["https://shop.example"])
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["test"])
    app.add_middleware(CacheMiddleware, cache=cache)

    @app.get("/page", dependencies=[cached(ttl=60)])
    async def page() -> int:
        return counted()

    async with client_of(app) as client:
        assert_miss(await client.get("/page"))
        assert_hit(await client.get("/page"))
        # Another host has never been let in, so nothing of it is stored.
        assert (await client.get("/page", headers={"host": "evil.example"})).status_code == 400
        # CORS inside answers by Origin.
        allowed = await client.get("/page", headers={"origin": "https://shop.example"})
        assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
        assert "access-control-allow-origin" not in (await client.get("/page")).headers
        denied = await client.get("/page", headers={"origin": "https://evil.example"})
        assert denied.headers.get("access-control-allow-origin") != "https://evil.example"
    await cache.stop()


async def test_middleware_outside_runs_on_every_hit() -> None:
    """The same key middleware around the cache refuses before it: the front is on, and nobody gets in by it."""
    cache = HTTPCache()
    app, counted = app_of(cache=cache)
    app.add_middleware(ApiKey)
    async with client_of(app) as client:
        assert_miss(await client.get("/page", headers=KEY))
        assert_hit(await client.get("/page", headers=KEY))
        assert (await client.get("/page")).status_code == 401
    assert (counted.calls, cache._core.counters.hits) == (1, 1)
    await cache.stop()


async def test_middleware_inside_a_mounted_app_closes_the_front_for_that_app_alone() -> None:
    """The mounted app's key is asked for on every request; the outer app's page is a front hit."""
    cache = HTTPCache()
    outer, _ = app_of(cache=cache)
    inner, counted = FastAPI(), Counted()
    inner.add_middleware(ApiKey)

    @inner.get("/page", dependencies=[cached(ttl=60)])
    async def page() -> int:
        return counted()

    outer.mount("/inner", inner)
    async with client_of(outer) as client:
        assert_miss(await client.get("/inner/page", headers=KEY))
        assert_hit(await client.get("/inner/page", headers=KEY))
        assert (await client.get("/inner/page")).status_code == 401
        assert cache._core.counters.hits == 0
        await client.get("/page")
        assert_hit(await client.get("/page"))
        assert cache._core.counters.hits == 1
    await cache.stop()


@pytest.mark.parametrize("front", [None, True])
async def test_a_middleware_that_rewrites_the_path_by_header_poisons_nobody(front: bool | None) -> None:
    """A beta header leads to another route: what is stored under the rewritten path never answers the plain one.

    With `front=True` the author says that the rewriting may be skipped, and a warm plain page answers both.
    """

    class Beta:
        def __init__(self, app: Any) -> None:
            self._app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and (b"x-beta", b"1") in scope["headers"]:
                scope = {**scope, "path": "/beta", "raw_path": b"/beta"}
            await self._app(scope, receive, send)

    cache = HTTPCache()
    app, _ = app_of(Beta, cache=cache, front=front)

    @app.get("/beta", dependencies=[cached(ttl=60)])
    async def beta() -> str:
        return "beta"

    async with client_of(app) as client:
        for _ in range(2):
            assert (await client.get("/page", headers={"x-beta": "1"})).json() == "beta"
        for _ in range(2):
            assert (await client.get("/page")).json() == 1
        expected = 1 if front else "beta"
        assert (await client.get("/page", headers={"x-beta": "1"})).json() == expected
    await cache.stop()


@pytest.mark.parametrize(
    ("inside", "front", "words"),
    [
        ((ApiKey,), None, ["the whole app", "ApiKey", "would be skipped"]),
        ((), False, ["the whole app", "front=False"]),
        ((ApiKey,), True, []),
        ((GZipMiddleware,), None, []),
    ],
    ids=["key", "front=False", "front=True", "gzip"],
)
async def test_the_startup_log_names_what_turned_the_front_off(
    inside: tuple[Any, ...], front: bool | None, words: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """One line at INFO with the class or the option; nothing where the front is on."""
    caplog.set_level(logging.INFO, logger="fastapi_cacheinval")
    app, _ = app_of(*inside, front=front)
    lifespan = LifespanByHand(app)
    await lifespan.tell("startup")
    lines = [record.getMessage() for record in caplog.records if "front lookup" in record.getMessage()]
    assert len(lines) == bool(words)
    for word in words:
        assert word in lines[0]
    await lifespan.tell("shutdown")
    await lifespan.ended()


async def test_the_startup_log_names_each_route_that_closes_the_front_itself(caplog: pytest.LogCaptureFixture) -> None:
    """A partitioned route is named with its reason, the shared ones are not."""
    caplog.set_level(logging.INFO, logger="fastapi_cacheinval")
    app, _ = app_of()

    async def session(session: Annotated[str, Cookie()] = "nobody") -> str:
        return session

    @app.get("/mine", dependencies=[cached(ttl=60, partition_by=session)])
    async def mine() -> str:
        return "mine"

    lifespan = LifespanByHand(app)
    await lifespan.tell("startup")
    lines = [record.getMessage() for record in caplog.records if "front lookup" in record.getMessage()]
    assert len(lines) == 1
    assert "/mine" in lines[0]
    assert "partition_by" in lines[0]
    await lifespan.tell("shutdown")
    await lifespan.ended()
