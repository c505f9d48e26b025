"""What a request would get that is not made: run it."""

from __future__ import annotations

import asyncio

import httpx
from fastapi import FastAPI

from fastapi_cacheinval import CacheMiddleware, Explanation, HTTPCache, cached, invalidates

cache = HTTPCache()
app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)


@app.get("/products/{product_id}", dependencies=[cached(ttl=60, jitter=0, tags=["product:{product_id}"])])
async def read_product(product_id: int) -> dict[str, int]:
    return {"id": product_id}


@app.put("/products/{product_id}", dependencies=[invalidates("product:{product_id}")])
async def update_product(product_id: int) -> None: ...


def show(told: Explanation) -> None:
    print(told.method, told.path, "->", told.cache_status)
    print("  ", told.because)
    for copy in told.stored:
        print(f"   in {copy.tier}: {copy.status}, {copy.size_bytes} bytes, tags {', '.join(copy.tags)}")
    if told.last_purge is not None:
        print("   last purge:", *told.last_purge.tags, "by", told.last_purge.by)


async def main() -> None:
    async with cache, httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        await client.get("/products/42")
        show(await cache.explain("http://test/products/42"))
        await client.put("/products/42")
        show(await cache.explain("http://test/products/42"))
        show(await cache.explain("http://test/products/43"))


if __name__ == "__main__":
    asyncio.run(main())
