"""How long the inspector holds the event loop when there are many routes, or many stored responses and tags."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import httpx
from fastapi import FastAPI

from bench.report import Options, Table, reached
from fastapi_cacheinval import CacheMiddleware, CacheTags, HTTPCache, cached
from fastapi_cacheinval.inspector import Inspector
from tests.helpers.pauses import longest_pause

__all__ = ["run"]

_TARGET = 5.0
_TAGS_EACH = 10
# The last route is found last, and so is what no tag contains.
_PATHS = (
    "",
    "api/state",
    "api/routes",
    "api/contents",
    "api/replicas",
    "api/search?q=nowhere",
    "api/explain?url=/route/{last}/1",
)


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
    """The longest turn of the loop while a client asks for a part of the page, in milliseconds of processor time."""

    async def look() -> None:
        (await client.get(f"/_cache/{path}")).raise_for_status()

    return await longest_pause(look, time.thread_time) * 1000


async def _turns(routes: int, responses: int) -> list[tuple[str, ...]]:
    cache = HTTPCache(l1_max_bytes=1024 * 1024 * 1024)
    transport = httpx.ASGITransport(_app(cache, routes))
    rows: list[tuple[str, ...]] = []
    async with cache, httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for number in range(responses):
            await client.get(f"/many/{number}")
        for path in (each.format(last=routes - 1) for each in _PATHS):
            # The first look makes the audit, in a thread. Each later look costs as much as the second.
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
    """A table of both shapes: many routes, and many responses."""
    most_routes, most_responses = (200, 200) if options.quick else (10_000, 100_000)
    rows: list[Sequence[str]] = [
        *asyncio.run(_turns(most_routes, 100)),
        *asyncio.run(_turns(10, most_responses)),
    ]
    return [
        Table(
            "The inspector's part of the event loop",
            "The longest turn of the loop while the inspector makes one part of the page, in milliseconds of processor "
            "time of the loop's thread. The work of other threads does not count.",
            ("part", "routes", "responses", "tags", "first look", "second look", "target", "reached"),
            rows,
        )
    ]
