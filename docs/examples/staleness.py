import asyncio

import httpx
from fastapi import FastAPI, HTTPException

from fastapi_cacheinval import CacheMiddleware, CachePolicy, HTTPCache, cached
from fastapi_cacheinval.testing import FakeClock, assert_hit, assert_miss, assert_stale

NEWS = CachePolicy(ttl=60, stale_while_revalidate=300, stale_if_error=3600, jitter=0, early_refresh=0)

clock = FakeClock()
cache = HTTPCache(clock=clock)
app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)

forwards: list[str] = []


@app.get("/news", dependencies=[cached(NEWS, tags=["news"])])
async def read_news() -> str:
    if len(forwards) >= 3:
        raise HTTPException(503, "the newsroom is closed")
    forwards.append("news")
    return f"edition {len(forwards)}"


async def refreshed() -> None:
    while cache.statistics().refreshing:
        await asyncio.sleep(0)


async def test_the_life_of_a_stored_response() -> None:
    transport = httpx.ASGITransport(app)
    async with cache, httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert_miss(await client.get("/news"))
        clock.tick(59)
        assert_hit(await client.get("/news"))

        clock.tick(61)  # 120 s old: stale, and within stale_while_revalidate
        stale = await client.get("/news")
        assert_stale(stale)
        assert (stale.json(), stale.headers["Age"]) == ("edition 1", "120")
        assert stale.headers["Cache-Status"] == "cacheinval; hit; ttl=-60"
        await refreshed()
        assert (await client.get("/news")).json() == "edition 2"

        await cache.invalidate("news", soft=True)
        assert_stale(await client.get("/news"))
        await refreshed()
        assert (await client.get("/news")).json() == "edition 3"

        clock.tick(1000)  # past stale_while_revalidate, and the app fails
        rescued = await client.get("/news")
        assert (rescued.status_code, rescued.json()) == (200, "edition 3")
        assert rescued.headers["Cache-Status"] == "cacheinval; fwd=stale; fwd-status=503; ttl=-940"

        await cache.invalidate("news")  # a hard purge: known to be wrong, so not even in place of an error
        assert (await client.get("/news")).status_code == 503
