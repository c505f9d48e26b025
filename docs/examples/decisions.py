"""What happens, as it happens: run it."""

from __future__ import annotations

import asyncio
import logging
import sys

import httpx
from fastapi import FastAPI

from fastapi_cacheinval import CacheMiddleware, Decision, Event, HTTPCache, PurgeEvent, cached, invalidates

cache = HTTPCache()
app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)


@app.get("/products/{product_id}", dependencies=[cached(ttl=60, tags=["product:{product_id}"])])
async def read_product(product_id: int) -> dict[str, int]:
    return {"id": product_id}


@app.put("/products/{product_id}", dependencies=[invalidates("product:{product_id}")])
async def update_product(product_id: int) -> None: ...


def note(event: Event) -> None:
    if isinstance(event, Decision):
        print("subscriber:", event.path, event.cache_status)
    elif isinstance(event, PurgeEvent):
        print("subscriber: purge of", *event.tags, "by", event.by)


async def main() -> None:
    decisions = logging.getLogger("fastapi_cacheinval.decisions")
    handler = logging.StreamHandler(sys.stdout)
    decisions.addHandler(handler)
    decisions.setLevel("DEBUG")
    unsubscribe = cache.subscribe(note)
    async with cache, httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for _ in range(2):
            await client.get("/products/42?token=secret")
        await client.put("/products/42")
    unsubscribe()
    decisions.setLevel("WARNING")
    decisions.removeHandler(handler)


if __name__ == "__main__":
    asyncio.run(main())
