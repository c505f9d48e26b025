import asyncio

import httpx
from fastapi import FastAPI

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached

cache = HTTPCache()
app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)

calls = 0


@app.get("/report", dependencies=[cached(ttl=60, jitter=0)])
async def read_report() -> str:
    global calls  # noqa: PLW0603
    calls += 1
    await asyncio.sleep(0.1)
    return "dear to make"


async def main() -> None:
    async with cache, httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        responses = await asyncio.gather(*(client.get("/report") for _ in range(200)))
    collapsed = sum("collapsed" in response.headers["Cache-Status"] for response in responses)
    print(f"{calls} forward, {collapsed} collapsed")


if __name__ == "__main__":
    asyncio.run(main())
