"""An app steered by headers, whose parts listen to their client in the ways that frameworks do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from fastapi_cacheinval import CacheMiddleware, HTTPCache

CHUNK = b"0123456789"
FRESH = {"cache-control": "max-age=60"}
ended = 0

app = FastAPI()


@app.middleware("http")
async def nothing(request: Request, call_next: Any) -> Any:
    """Pass the request on."""
    return await call_next(request)


async def chunks(count: int, size: int, *, pause: bool) -> AsyncIterator[bytes]:
    """So many chunks of so many times ten bytes."""
    for _ in range(count):
        yield CHUNK * size
        await asyncio.sleep(0.005 if pause else 0)


@app.get("/dispatched")
async def dispatched() -> StreamingResponse:
    """200 bytes that are not stored, behind a middleware of the framework's."""
    return StreamingResponse(chunks(20, 1, pause=True), headers={"cache-control": "no-store"})


@app.get("/events")
async def events() -> StreamingResponse:
    """Server-sent events."""
    return StreamingResponse(chunks(20, 1, pause=True), media_type="text/event-stream")


@app.get("/large")
async def large() -> StreamingResponse:
    """3 MiB that could be stored, were they not too much."""
    return StreamingResponse(chunks(3 * 16, 65_536 // 10, pause=False), headers=FRESH)


@app.get("/echo")
async def echo(request: Request) -> StreamingResponse:
    """The content of the request."""
    body = await request.body()

    async def said() -> AsyncIterator[bytes]:
        yield b"<" + body + b">"

    return StreamingResponse(said(), headers=FRESH)


async def listens(scope: Any, receive: Any, send: Any) -> None:
    """200 bytes, beside which any message of the client is taken for its end, as Django's handler does."""
    while (await receive()).get("more_body", False):
        pass

    async def answer() -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"set-cookie", b"a=b")]})
        async for chunk in chunks(20, 1, pause=True):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    listening, answering = asyncio.ensure_future(receive()), asyncio.ensure_future(answer())
    await asyncio.wait({listening, answering}, return_when=asyncio.FIRST_COMPLETED)
    if not answering.done():
        answering.cancel()
        raise RuntimeError(f"heard {listening.result()['type']} before the end")
    listening.cancel()


async def waits(scope: Any, receive: Any, send: Any) -> None:
    """A stored response, after which the app waits until its client is gone."""
    global ended  # noqa: PLW0603 - what one process counts
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"max-age=60")]})
    await send({"type": "http.response.body", "body": b"said"})
    while (await receive())["type"] != "http.disconnect":
        pass
    ended += 1


async def count(scope: Any, receive: Any, send: Any) -> None:
    """How many of those have heard it."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"no-store")]})
    await send({"type": "http.response.body", "body": b"%d" % ended})


_PLAIN = {"/listens": listens, "/waits": waits, "/ended": count}


async def all_of(scope: Any, receive: Any, send: Any) -> None:
    """The apps without a framework, and the one with."""
    await _PLAIN.get(scope.get("path", ""), app)(scope, receive, send)


served = CacheMiddleware(all_of, cache=HTTPCache(), honour_headers=True)
