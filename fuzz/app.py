"""The app that raw requests are sent to: `policy`, `headers`, `bare` (a policy, no compression), or without a cache.

Every answer follows from the request and from what was written before, so two servers that are asked the same in the
same order have to say the same.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Body, FastAPI, Header, HTTPException, Path, Query, Response
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import RedirectResponse, StreamingResponse

from fastapi_cacheinval import CacheMiddleware, CachePolicy, HTTPCache, cached, invalidates

__all__ = ["BIG", "app", "make"]

BIG = 40_000
_CHUNK = 1_000


def make(mode: str, *, with_cache: bool) -> FastAPI:  # noqa: C901
    """An app in one of the modes: "policy", "headers" or "bare"."""
    by_policy = mode != "headers"
    app = FastAPI()
    if mode != "bare":
        app.add_middleware(GZipMiddleware, minimum_size=200)
    if with_cache:
        app.add_middleware(CacheMiddleware, cache=HTTPCache(secret="only for fuzzing"), honour_headers=not by_policy)  # noqa: S106
    values: dict[int, str] = {}
    policy = CachePolicy(ttl=600, jitter=0, tags=["items"], statuses={200, 404})

    def dependencies(*more: str, **fields: Any) -> list[Any]:
        return [cached(policy, tags=list(more), **fields)] if by_policy else []

    def purging() -> list[Any]:
        # Without the middleware it raises, as it should.
        return [invalidates("item:{item}")] if by_policy and with_cache else []

    def fresh(response: Response, vary: str = "") -> None:
        if not by_policy:
            response.headers["cache-control"] = "max-age=600"
            if vary:
                response.headers["vary"] = vary
                # Paths go by their spelling: `/items/1` and `/items/+1` are one item.
                response.headers["surrogate-key"] = "items"

    def written(response: Response) -> None:
        if not by_policy:
            response.headers["surrogate-key"] = "items"

    @app.get("/items/{item}", dependencies=dependencies("item:{item}"))
    async def item(
        item: Annotated[int, Path()],
        response: Response,
        q: str = "",
        many: Annotated[list[str] | None, Query()] = None,
        accept_language: Annotated[str | None, Header()] = None,
    ) -> dict[str, Any]:
        fresh(response, "accept-language")
        if item > 10**6:
            raise HTTPException(404, "no such item", headers=None if by_policy else {"cache-control": "max-age=600"})
        return {"item": item, "value": values.get(item, ""), "q": q, "many": many, "language": accept_language}

    @app.put("/items/{item}", dependencies=purging())
    async def write(item: int, response: Response, value: Annotated[str, Body()] = "") -> dict[str, Any]:
        values[item] = value
        written(response)
        return {"item": item, "length": len(value)}

    @app.delete("/items/{item}", status_code=204, dependencies=purging())
    async def remove(item: int, response: Response) -> None:
        values.pop(item, None)
        written(response)

    @app.delete("/items", status_code=204, dependencies=[invalidates("items")] if by_policy and with_cache else [])
    async def remove_all(response: Response) -> None:
        values.clear()
        written(response)

    @app.get("/text/{name:path}", dependencies=dependencies())
    async def text(name: str, response: Response) -> str:
        fresh(response)
        return name * 20

    @app.get("/big/{size}", dependencies=dependencies())
    async def big(size: Annotated[int, Path(ge=0, le=BIG)]) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            for start in range(0, size, _CHUNK):
                yield b"%d." % start * 10

        return StreamingResponse(body(), headers={} if by_policy else {"cache-control": "max-age=600"})

    @app.get("/old", dependencies=dependencies())
    async def old() -> RedirectResponse:
        return RedirectResponse("/items/1", 301)

    @app.get("/plain")
    async def plain(q: str = "") -> dict[str, str]:
        return {"q": q}

    @app.post("/echo")
    async def echo(value: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        return value

    return app


def app() -> FastAPI:
    """The app that the environment names, for a server that takes a factory."""
    return make(os.environ["FUZZ_MODE"], with_cache=os.environ["FUZZ_CACHE"] == "1")
