"""Follow one request of each kind as data: how many calls of the package it makes, through how many files.

`python -m scripts.flow_counts` prints a Markdown table. A *call* is one entry into a function or coroutine of the
package. A *turn* is a step into a file that the flow had already left. The replicas live on one event loop and
share a Valkey.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Response
from fastapi.security import APIKeyHeader

import fastapi_cacheinval
from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates
from fastapi_cacheinval.testing.servers.valkey import Server

__all__ = ["Flow", "flows", "main"]

_PACKAGE = str(Path(fastapi_cacheinval.__file__).parent)
_QUIET_ROUNDS = 50
_SETTLE_SECONDS = 0.002
# No heartbeat falls into a flow.
_BOUND = 300
_BRIEF = 0.05
_TRIES = 4
_HITS = 20
_KEY = APIKeyHeader(name="x-api-key", auto_error=False)

Serve = Callable[..., Awaitable[int]]
Before = Callable[[int], Awaitable[object]]


@dataclass(slots=True)
class Flow:
    """What one request did inside the package."""

    name: str
    calls: int = 0
    turns: int = 0
    files: set[str] = field(default_factory=set)
    _here: str = ""
    _frames: list[FrameType] = field(default_factory=list)
    _seen: set[int] = field(default_factory=set)

    def note(self, frame: FrameType, event: str, _argument: object) -> None:
        """A profile function: a coroutine that goes on after an `await` is the same call."""
        path = frame.f_code.co_filename
        if event != "call" or not path.startswith(_PACKAGE) or id(frame) in self._seen:
            return
        self._seen.add(id(frame))
        # Kept, so that no other frame gets the same id.
        self._frames.append(frame)
        self.calls += 1
        if path != self._here and path in self.files:
            self.turns += 1
        self.files.add(path)
        self._here = path

    def row(self) -> str:
        """Its line of the table."""
        return f"| {self.name} | {self.calls} | {len(self.files)} | {self.turns} |"

    def done(self) -> None:
        """Let go of the frames."""
        self._frames.clear()


async def _key(key: Annotated[str | None, Depends(_KEY)]) -> str | None:
    return key


def _policy_app(cache: HTTPCache) -> FastAPI:
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache)

    @app.get("/items/{item}", dependencies=[cached(ttl=60, tags=["item:{item}"])])
    async def read(item: int) -> dict[str, int]:
        return {"item": item}

    @app.get("/brief/{item}", dependencies=[cached(ttl=_BRIEF, stale_while_revalidate=600, jitter=0)])
    async def brief(item: int) -> dict[str, int]:
        return {"item": item}

    @app.get("/mine/{item}", dependencies=[cached(ttl=60, partition_by=_key, tags=["item:{item}"])])
    async def mine(item: int) -> dict[str, int]:
        return {"item": item}

    @app.put("/items/{item}", dependencies=[invalidates("item:{item}")])
    async def write(item: int) -> dict[str, int]:
        return {"item": item}

    return app


def _header_app(cache: HTTPCache) -> FastAPI:
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache, honour_headers=True)

    @app.get("/items/{item}")
    async def read(item: int, response: Response) -> dict[str, int]:
        response.headers["cache-control"] = "max-age=60, stale-while-revalidate=600"
        return {"item": item}

    return app


async def _ask(app: Any, method: str, path: str, **headers: str) -> int:
    """One request; its status."""
    status = 0
    fields = [(b"host", b"shop.example"), *((name.encode(), value.encode()) for name, value in headers.items())]
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "scheme": "http",
        "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": fields, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "extensions": {},
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]

    await app(scope, receive, send)
    return status


async def _nothing(number: int) -> None:
    """Nothing comes before it."""


async def _settled() -> None:
    """Let what runs beside the request come to its end: writes to Valkey, messages, a refresh."""
    for _ in range(_QUIET_ROUNDS):
        await asyncio.sleep(_SETTLE_SECONDS)


async def _followed(
    name: str, act: Before, before: Before = _nothing, *, tries: int = _TRIES, quiet: bool = True
) -> Flow:
    """The shortest of a few, each after what comes `before` it; both are given its number.

    It has all that runs beside it, where it begins in `quiet`.

    One in some looks whether routes were changed, and one may meet what another has left to do.
    """
    tried: list[Flow] = []
    for number in range(1, 1 + tries):
        await before(number)
        if quiet:
            await _settled()
        flow = Flow(name)
        sys.setprofile(flow.note)
        try:
            await act(number)
            if quiet:
                await _settled()
        finally:
            sys.setprofile(None)
            flow.done()
        tried.append(flow)
    return min(tried, key=lambda each: each.calls)


@asynccontextmanager
async def _replicas(url: str, namespace: str, make: Callable[[HTTPCache], Any], count: int) -> AsyncIterator[list[Any]]:
    """Apps that share a Valkey, each with a cache of its own."""
    async with contextlib.AsyncExitStack() as running:
        apps = []
        for _ in range(count):
            cache = HTTPCache.from_url(
                url,
                namespace=namespace,
                secret="only for counting",  # noqa: S106
                staleness_bound=_BOUND,
            )
            await cache.start()
            running.push_async_callback(cache.stop)
            apps.append(make(cache))
        yield apps


async def _count(url: str) -> list[Flow]:
    found: list[Flow] = []
    async with _replicas(url, "policy", _policy_app, 2) as apps:
        first, other = apps
        for app in apps:
            await _ask(app, "GET", "/items/0")
            await _ask(app, "GET", "/mine/0")
            await _ask(app, "PUT", "/items/0")

        async def item(number: int) -> None:
            await _ask(first, "GET", f"/items/{number}")

        async def on_both(number: int) -> None:
            await _ask(first, "GET", f"/items/{number}")
            await _ask(other, "GET", f"/items/{number}")

        async def mine(number: int) -> None:
            await _ask(first, "GET", f"/mine/{number}", **{"x-api-key": "a"})

        async def put(number: int) -> None:
            await _ask(first, "PUT", f"/items/{number}")

        async def brief(number: int) -> None:
            await _ask(first, "GET", f"/brief/{number}")

        found.append(await _followed("miss, fill, L2", item))
        await on_both(0)
        found.append(await _followed("front hit", lambda _: item(0), tries=_HITS, quiet=False))
        found.append(await _followed("route hit behind a key", mine, mine))
        found.append(await _followed("PUT, and its apply on another replica", put, on_both))
        found.append(await _followed("stale, and its refresh", brief, brief))
    async with _replicas(url, "headers", _header_app, 1) as apps:
        only = apps[0]

        async def by_headers(number: int) -> None:
            await _ask(only, "GET", f"/items/{number}")

        await by_headers(0)
        found.append(await _followed("by headers: miss", by_headers))
        found.append(await _followed("by headers: hit", by_headers, by_headers))
    return found


def flows() -> list[Flow]:
    """One flow of each kind."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        try:
            return asyncio.run(_count(f"redis://127.0.0.1:{server.port}/0"))
        finally:
            server.close()


def main() -> None:
    """Print the table."""
    print("| flow | calls | files | turns back |\n|---|---|---|---|")
    for flow in flows():
        print(flow.row())


if __name__ == "__main__":
    main()
