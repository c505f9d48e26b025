"""An app for `Replicas`, each of which purges the CDN at `CDN_URL`."""

from __future__ import annotations

import os

from fastapi import FastAPI

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates
from fastapi_cacheinval.contrib.cdn import CDNPurger, Fastly

cache = HTTPCache.from_url(os.environ["REDIS_URL"], staleness_bound=2.0, redis_timeout=0.6)
cache.attach(CDNPurger(cache, Fastly(os.environ["SERVICE"], os.environ["TOKEN"], api=os.environ["CDN_URL"])))
app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)


@app.get("/prices/{number}", dependencies=[cached(ttl=600, jitter=0, early_refresh=0, tags=["price:{number}"])])
async def read_price(number: int) -> str:
    """What stands in a file, which all replicas share."""
    with open(os.environ["PRICES"], encoding="utf-8") as file:  # noqa: ASYNC230, PTH123  # a few bytes
        return file.read()


@app.put("/prices/{number}", dependencies=[invalidates("price:{number}")])
async def change_price(number: int, price: str) -> None:
    """Write it."""
    with open(os.environ["PRICES"], "w", encoding="utf-8") as file:  # noqa: ASYNC230, PTH123  # a few bytes
        file.write(price)
