"""An app for `Replicas`: it counts its forwards, and says which process it is."""

from __future__ import annotations

import os
from itertools import count

from fastapi import FastAPI

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates

cache = HTTPCache.from_url(os.environ["REDIS_URL"], redis_timeout=0.6)
app = FastAPI()
made = count()
app.add_middleware(CacheMiddleware, cache=cache)


@app.get("/it", dependencies=[cached(ttl=60, jitter=0, early_refresh=0, tags=["it"])])
async def read_it() -> str:
    """Who made the answer, and how many it had made."""
    return f"{os.getpid()}-{next(made)}"


@app.put("/it", dependencies=[invalidates("it")])
async def write_it() -> None:
    """Purge it."""


@app.get("/state")
async def state() -> dict[str, object]:
    """What a test asks for."""
    return {"pid": os.getpid(), "name": os.environ.get("NAME"), "connected": cache.statistics().connected}
