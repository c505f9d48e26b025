"""Processes over one Redis in which several apps share a cache: none is handed what another app's process filled."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI, Response
from starlette.responses import PlainTextResponse

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from tests.helpers.fleet import CALM, SECRET, eventually
from tests.helpers.http import ask
from tests.helpers.life import LifespanByHand
from tests.servers import Valkey

pytestmark = pytest.mark.anyio

TENANTS = ("acme", "bolt")


def by_policy(tenant: int, cache: HTTPCache) -> FastAPI:
    """A tenant's app: its handlers show nothing but a number."""
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache)

    @app.get("/page", dependencies=[cached(ttl=60)])
    def page() -> str:
        return TENANTS[tenant]

    @app.get("/ping")
    def ping() -> None: ...

    return app


def by_headers(tenant: int, cache: HTTPCache) -> FastAPI:
    """The same, by what its responses' headers say."""
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache, honour_headers=True)

    @app.get("/page")
    def page(response: Response) -> str:
        response.headers["cache-control"] = "public, max-age=60"
        return TENANTS[tenant]

    @app.get("/ping")
    def ping(response: Response) -> None:
        response.headers["cache-control"] = "no-store"

    return app


def plain(tenant: int, cache: HTTPCache) -> Any:
    """The same, of no framework."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        control = "no-store" if scope["path"] == "/ping" else "public, max-age=60"
        body = f'"{TENANTS[tenant]}"'
        await PlainTextResponse(body, headers={"cache-control": control})(scope, receive, send)

    return CacheMiddleware(app, cache, honour_headers=True)


@contextlib.asynccontextmanager
async def process(server: Valkey, make: Any, started: str) -> AsyncIterator[tuple[HTTPCache, list[Any]]]:
    """One cache and an app of each tenant over it, `started` by a request each, by lifespans, or the first alone."""
    cache = HTTPCache.from_url(server.url, secret=SECRET, **CALM)
    apps = [make(number, cache) for number in range(len(TENANTS))]
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(cache)
        if started == "asked":
            for app in apps:
                await ask(app, "/ping", host="shop.test")
        else:
            for app in apps if started == "lifespans" else apps[:1]:
                lifespan = LifespanByHand(app)
                await lifespan.tell("startup")
                stack.push_async_callback(lifespan.ended)
                stack.push_async_callback(lifespan.tell, "shutdown")
        yield cache, apps


@pytest.mark.parametrize("make", [by_policy, by_headers, plain])
@pytest.mark.parametrize("started", ["asked", "lifespans", "lifespan of the first"])
async def test_what_one_process_has_of_one_app_another_never_has_of_the_other(
    redis_server: Valkey, make: Any, started: str
) -> None:
    """One process is asked for acme's page alone, the other for bolt's alone, so that no lookup sees both."""
    async with process(redis_server, make, started) as (first, one), process(redis_server, make, started) as (_, two):
        answer = await ask(one[0], "/page", host="shop.test")
        assert answer.body == b'"acme"'
        if started == "lifespan of the first":
            # It has heard of no other app, and so the page may be shared.
            await eventually(lambda: first.statistics().l2.get("write", 0), "a write to L2")
        assert (await ask(two[1], "/page", host="shop.test")).body == b'"bolt"'
        assert (await ask(one[1], "/page", host="shop.test")).body == b'"bolt"'
        assert (await ask(two[0], "/page", host="shop.test")).body == b'"acme"'
