"""A tiny app on the installed package, as an ASGI server calls it: a miss, a hit, a purge, a miss, the inspector."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI
from starlette.types import Message

import fastapi_cacheinval
from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates
from fastapi_cacheinval.inspector import Inspector

cache = HTTPCache()
app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)
app.mount("/_cache", Inspector(cache, guard=lambda: True))
calls = 0


@app.get("/products/{product_id}", dependencies=[cached(ttl=60, tags=["product:{product_id}"])])
async def read_product(product_id: int) -> dict[str, int]:
    global calls  # noqa: PLW0603 - what the program counts
    calls += 1
    return {"id": product_id, "calls": calls}


@app.put("/products/{product_id}", dependencies=[invalidates("product:{product_id}")])
async def update_product(product_id: int) -> None:
    """Change nothing, so that the purge is all that happens."""


@contextlib.asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    """Run the app's lifespan as a server does."""
    incoming: asyncio.Queue[Message] = asyncio.Queue()
    outgoing: asyncio.Queue[Message] = asyncio.Queue()
    task = asyncio.create_task(app({"type": "lifespan", "asgi": {"version": "3.0"}}, incoming.get, outgoing.put))
    for phase in ("startup", "shutdown"):
        await incoming.put({"type": f"lifespan.{phase}"})
        message = await outgoing.get()
        assert message["type"] == f"lifespan.{phase}.complete", message
        if phase == "startup":
            yield
    await task


async def request(method: str, path: str) -> tuple[int, str, bytes]:
    """Status, `Cache-Status` and body of one request."""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(b"host", b"shop.example")], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {},
    }  # fmt: skip
    sent: list[Message] = []
    body = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Message:
        with contextlib.suppress(StopIteration):
            return next(body)
        return await asyncio.Future()

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    headers = dict(sent[0]["headers"])
    return sent[0]["status"], headers.get(b"cache-status", b"").decode(), b"".join(m.get("body", b"") for m in sent[1:])


async def main() -> None:
    async with lifespan():
        first = await request("GET", "/products/1")
        second = await request("GET", "/products/1")
        purge = await request("PUT", "/products/1")
        third = await request("GET", "/products/1")
        names = ("", "static/inspector.js", "static/inspector.css")
        files = [await request("GET", f"/_cache/{name}") for name in names]
    assert first[0] == 200, first
    assert "fwd=uri-miss" in first[1], first
    assert second[1].startswith("cacheinval; hit"), second
    assert second[2] == first[2] == b'{"id":1,"calls":1}', second
    assert purge[0] == 200, purge
    assert "hit" not in third[1], third
    assert third[2] == b'{"id":1,"calls":2}', third
    assert all(status == 200 and body for status, _, body in files), files
    print(f"{fastapi_cacheinval.__file__}: miss, hit, purge, miss, inspector")


asyncio.run(main())
