"""For how long the inspector has the event loop for itself: many routes, and many stored responses and tags."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import httpx
from fastapi import FastAPI

from bench.report import Options, Table, reached
from fastapi_cacheinval import CacheMiddleware, CacheTags, HTTPCache, cached
from fastapi_cacheinval.inspector import Inspector

__all__ = ["run"]

_TARGET = 5.0
_TAGS_EACH = 10
_PATHS = ("", "api/state", "api/routes", "api/contents")


async def _everybody() -> bool:
    return True


def _app(cache: HTTPCache, routes: int) -> FastAPI:
    app = FastAPI()
    app.mount("/_cache", Inspector(cache, guard=_everybody))

    @app.get("/many/{number}", dependencies=[cached(ttl=3600)])
    async def many(number: int, tags: CacheTags) -> int:
        tags.add(*(f"tag:{number}:{each}" for each in range(_TAGS_EACH)))
        return number

    async def read(item: int) -> int:
        return item

    for number in range(routes):
        app.get(f"/route/{number}/{{item}}", dependencies=[cached(ttl=3600, tags=[f"route:{number}"])])(read)
    app.add_middleware(CacheMiddleware, cache=cache)
    return app


async def _longest_turn(client: httpx.AsyncClient, path: str) -> float:
    """Milliseconds of processor time of the longest turn of the loop while a part of the page is asked for."""
    turns: list[float] = []
    ended = False

    async def watch() -> None:
        last = time.thread_time()
        while not ended:
            await asyncio.sleep(0)
            now = time.thread_time()
            turns.append(now - last)
            last = now

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    answer = await client.get(f"/_cache/{path}")
    answer.raise_for_status()
    ended = True
    await watching
    return max(turns) * 1000


async def _turns(routes: int, responses: int) -> list[tuple[str, ...]]:
    cache = HTTPCache(l1_max_bytes=1024 * 1024 * 1024)
    transport = httpx.ASGITransport(_app(cache, routes))
    rows: list[tuple[str, ...]] = []
    async with cache, httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for number in range(responses):
            await client.get(f"/many/{number}")
        for path in _PATHS:
            # The first look makes the audit, in a thread; the second one is what each look after it costs.
            first, second = await _longest_turn(client, path), await _longest_turn(client, path)
            rows.append(
                (
                    f"/{path}",
                    f"{routes:,}",
                    f"{responses:,}",
                    f"{responses * _TAGS_EACH:,}",
                    f"{first:.1f}",
                    f"{second:.1f}",
                    f"{_TARGET:g}",
                    reached(max(first, second) <= _TARGET),
                )
            )
    return rows


def run(options: Options) -> list[Table]:
    """The table of both shapes."""
    most_routes, most_responses = (200, 200) if options.quick else (10_000, 100_000)
    rows: list[Sequence[str]] = [
        *asyncio.run(_turns(most_routes, 100)),
        *asyncio.run(_turns(10, most_responses)),
    ]
    return [
        Table(
            "The inspector's part of the event loop",
            "The longest turn of the loop while one part of the page is made, in milliseconds of processor time of the "
            "loop's thread; what a thread beside it does is not in it.",
            ("part", "routes", "responses", "tags", "first look", "second look", "target", "reached"),
            rows,
        )
    ]
