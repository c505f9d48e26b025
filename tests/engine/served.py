"""The app that processes serve: one cached resource whose data is a file that all processes read and write."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates

PLACE = Path(os.environ["PLACE"])

cache = HTTPCache.from_url(
    os.environ["REDIS"],
    secret="a secret that all replicas share",
    staleness_bound=float(os.environ["BOUND"]),
    read_your_writes=True,
)
app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)


def count(name: str) -> None:
    """Note in a file that a handler has run, and where."""
    with (PLACE / f"{name}.calls").open("a") as file:
        file.write(f"{os.getpid()}\n")


@app.get("/items/{name}", dependencies=[cached(ttl=60, jitter=0, early_refresh=0, tags=["item:{name}"])])
async def read(name: str) -> Any:
    """The file's version, read before the time that it takes to answer."""
    count(name)
    version = (PLACE / name).read_text() if (PLACE / name).exists() else "0"
    while (PLACE / f"{name}.hold").exists():  # noqa: ASYNC110 - it is another process that takes it away
        await asyncio.sleep(0.01)
    return {"version": int(version), "pid": os.getpid()}


@app.put("/items/{name}", dependencies=[invalidates("item:{name}")])
async def write(name: str, version: int) -> Any:
    """Another version."""
    (PLACE / name).write_text(str(version))
    return {"version": version}


@app.get("/statistics")
async def statistics() -> Any:
    """How this process stands."""
    found = cache.statistics()
    return {
        "live": found.lease_remaining > 0,
        "connected": found.connected,
        "applied": found.applied,
        "term": found.term,
        "under_way": found.forwards_under_way,
        "waiting": sum(runtime.flights.waiting for runtime in cache._core.runtimes.values()),
    }
