"""The apps that are compared: all of them answer `/items/{item_id}` with the same JSON."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from bench.requests import Answer, answer_of
from fastapi_cacheinval import CacheMiddleware, CachePolicy, HTTPCache, cached

__all__ = ["APPS", "bare", "cached_app", "content", "has_litestar", "plain_app", "stub_in_fastapi"]

POLICY = CachePolicy(ttl=86_400)
TAGS = ("item:{item_id}", "items")


def content(size: int) -> dict[str, Any]:
    """What an item is: an object whose JSON takes `size` bytes."""
    item = {"name": "a thing that is sold", "price": 12.5, "text": ""}
    item["text"] = "x" * (size - len('{"name":"a thing that is sold","price":12.5,"text":""}'))
    return item


def cached_app(size: int = 1024, cache: HTTPCache | None = None, **options: Any) -> FastAPI:
    """The cache in its default configuration, with two tags on each response; `options` are FastAPI's."""
    app = FastAPI(**options)
    app.add_middleware(CacheMiddleware, cache=cache)
    item = content(size)

    @app.get("/items/{item_id}", dependencies=[cached(POLICY, tags=TAGS)])
    async def read_item(item_id: int) -> dict[str, Any]:
        return item

    @app.get("/plain/{item_id}")
    async def read_plain(item_id: int) -> dict[str, Any]:
        return item

    return app


def plain_app(size: int = 1024) -> FastAPI:
    """The same routes without any cache."""
    app = FastAPI()
    item = content(size)

    @app.get("/items/{item_id}")
    async def read_item(item_id: int) -> dict[str, Any]:
        return item

    @app.get("/plain/{item_id}")
    async def read_plain(item_id: int) -> dict[str, Any]:
        return item

    return app


class Stub:
    """A middleware that answers everything at once with bytes that it was given."""

    def __init__(self, app: ASGIApp, answer: Answer) -> None:
        self.app = app
        self.headers = answer.headers
        self.body = answer.body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})


def stub_in_fastapi(answer: Answer) -> FastAPI:
    """The stub where the cache would be."""
    app = plain_app()
    app.add_middleware(Stub, answer=answer)
    return app


def bare(answer: Answer) -> ASGIApp:
    """No framework at all."""
    headers, body = answer.headers, answer.body

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # The lifespan protocol lets an app that does not speak it fail.
            raise NotImplementedError(scope["type"])
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def has_litestar() -> bool:
    """Whether Litestar can be compared."""
    return find_spec("litestar") is not None


def litestar_app(size: int) -> ASGIApp:
    """Litestar with its own response cache, in memory."""
    litestar: Any = import_module("litestar")
    item = content(size)

    async def read_item(item_id: int) -> dict[str, Any]:
        return item

    handler = litestar.get("/items/{item_id:int}", cache=86_400)(read_item)
    app: ASGIApp = litestar.Litestar(route_handlers=[handler], openapi_config=None)
    return app


def _hit(size: int) -> Answer:
    return answer_of(cached_app(size), "/items/1")


APPS: dict[str, Callable[[int], ASGIApp]] = {
    "bare": lambda size: bare(_hit(size)),
    "stub": lambda size: stub_in_fastapi(_hit(size)),
    "front hit": cached_app,
    "litestar": litestar_app,
    "uncached": plain_app,
}
