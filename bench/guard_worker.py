"""One tree's side of the guard: `python -m bench.guard_worker`, with that tree first on the path of modules.

Each line of its input names a case. It runs one batch of that case, and answers with the processor time per request in
microseconds. It uses only public names of the package, because it runs on older trees too.
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
from starlette.types import Message, Scope

import fastapi_cacheinval
from bench.requests import get_scope, no_body
from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates

__all__ = ["CASES"]

_TOKEN = OAuth2PasswordBearer("token")
_BATCH = 100


async def user(token: Annotated[str, Depends(_TOKEN)]) -> str:
    """The holder of the token."""
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
# Each case makes the next request to the app.
CASES: dict[str, Callable[[], Scope]] = {
    "front hit": lambda: get_scope(f"/items/{next(_numbers) % 100}"),
    "route hit, partition_by": lambda: get_scope("/mine", [("authorization", "Bearer somebody")]),
    "miss": lambda: get_scope(f"/items/{next(_numbers)}"),
    "route that is not cached": lambda: get_scope("/plain"),
    "mutation": lambda: {**get_scope(f"/items/{next(_numbers) % 100 + 1000}"), "method": "PUT"},
}


async def _drop(message: Message) -> None:
    if message.get("status", 200) != 200:
        raise RuntimeError(f"answered with {message['status']}")


async def _batch(app: Any, case: str) -> float:
    scopes = [CASES[case]() for _ in range(_BATCH)]
    began = time.thread_time_ns()
    for scope in scopes:
        await app(scope, no_body, _drop)
    return (time.thread_time_ns() - began) / _BATCH / 1000


async def _serve() -> None:
    app: Any = _app()
    for case in CASES:
        await _batch(app, case)
    print(Path(fastapi_cacheinval.__file__).parent.parent, flush=True)
    # The loop runs while the worker waits for a line, because a cache needs its timers.
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(await _batch(app, line.strip()), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve())
