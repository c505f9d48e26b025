"""One tree's side of the guard: `python guard_worker.py`, with that tree first on the path of modules.

Each line that it reads names a case; it answers with microseconds of processor time per request of one batch. It uses
nothing but public names, because older trees have to run it too.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from fastapi.security import OAuth2PasswordBearer

import fastapi_cacheinval
from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates

__all__ = ["CASES"]

_TOKEN = OAuth2PasswordBearer("token")
_BATCH = 100


async def user(token: Annotated[str, Depends(_TOKEN)]) -> str:
    """Who holds the token."""
    return token


def _app() -> FastAPI:
    """An app with a route of each kind."""
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    item = {"name": "a thing that is sold", "text": "x" * 970}

    @app.get("/items/{item_id}", dependencies=[cached(ttl=86_400, tags=["item:{item_id}", "items"])])
    async def read_item(item_id: int) -> dict[str, Any]:
        return item

    @app.put("/items/{item_id}", dependencies=[invalidates("item:{item_id}")])
    async def write_item(item_id: int) -> dict[str, Any]:
        return item

    @app.get("/mine", dependencies=[cached(ttl=86_400, partition_by=user)])
    async def mine(who: Annotated[str, Depends(user)]) -> dict[str, Any]:
        return item

    @app.get("/plain")
    async def plain() -> dict[str, Any]:
        return item

    return app


_numbers = count(10_000)
# Each case: method, path, query, and whether it is asked for with a token.
CASES: dict[str, tuple[str, Callable[[], tuple[str, str]], bool]] = {
    "front hit": ("GET", lambda: (f"/items/{next(_numbers) % 100}", ""), False),
    "route hit, partition_by": ("GET", lambda: ("/mine", ""), True),
    "miss": ("GET", lambda: (f"/items/{next(_numbers)}", ""), False),
    "route that is not cached": ("GET", lambda: ("/plain", ""), False),
    "mutation": ("PUT", lambda: (f"/items/{next(_numbers) % 100 + 1000}", ""), False),
}


def _scope(case: str) -> dict[str, Any]:
    method, target, token = CASES[case]
    path, query = target()
    fields = [("host", "shop.example"), ("user-agent", "guard"), ("accept", "application/json")]
    if token:
        fields.append(("authorization", "Bearer somebody"))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "method": method,
        "root_path": "",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in fields],
        "state": {},
        "extensions": {},
    }


async def _no_body() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _drop(message: Any) -> None:
    if message.get("status", 200) != 200:
        raise RuntimeError(f"answered with {message['status']}")


async def _batch(app: Any, case: str) -> float:
    scopes = [_scope(case) for _ in range(_BATCH)]
    began = time.thread_time_ns()
    for scope in scopes:
        await app(scope, _no_body, _drop)
    return (time.thread_time_ns() - began) / _BATCH / 1000


async def _serve() -> None:
    app: Any = _app()
    for case in CASES:
        await _batch(app, case)
    print(Path(fastapi_cacheinval.__file__).parent.parent, flush=True)
    # The loop runs on while it waits for the next: a cache lives by its timers.
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(await _batch(app, line.strip()), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve())
