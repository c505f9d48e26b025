"""Each hit is made again and compared: run it."""

from __future__ import annotations

import asyncio

import httpx
from fastapi import FastAPI

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached

cache = HTTPCache(shadow=1.0)  # in production a thousandth will do
app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)
price = 30


@app.get("/name", dependencies=[cached(ttl=60)])
async def read_name() -> str:
    return "chair"


@app.get("/price", dependencies=[cached(ttl=60)])
async def read_price() -> int:
    return price


async def main() -> None:
    global price  # noqa: PLW0603
    async with cache, httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for path in ("/name", "/price"):
            await client.get(path)
        price = 31  # and nothing purges it
        for count in range(1, 41):
            await client.get("/price" if count == 20 else "/name")
            while cache.statistics().shadow.compared < count:
                await asyncio.sleep(0)
    shadow = cache.statistics().shadow
    print(shadow)
    print(*shadow.different_by_route)


if __name__ == "__main__":
    asyncio.run(main())
