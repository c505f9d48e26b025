"""The app of the tests with real processes: it exports what the standard environment variables say."""

from __future__ import annotations

import os
import time

from fastapi import FastAPI
from opentelemetry.instrumentation.redis import RedisInstrumentor

from fastapi_cacheinval import CacheMiddleware, CachePolicy, HTTPCache, cached, invalidates

# As an installed instrumentation would be by `opentelemetry-instrument`.
RedisInstrumentor().instrument()

cache = HTTPCache.from_url(os.environ["SERVED_REDIS"], secret="a secret that all replicas share")
app = FastAPI(telemetry={"auto_configure": True, "logs": False})
app.add_middleware(CacheMiddleware, cache=cache)

POLICY = CachePolicy(ttl=300, stale_while_revalidate=600, jitter=0, early_refresh=0)


@app.get("/")
async def root() -> None: ...


@app.get("/products/{number}", dependencies=[cached(POLICY, tags=["secret-tag:{number}"])])
async def read(number: int) -> dict[str, float]:
    return {"at": time.time()}


@app.put("/products/{number}", dependencies=[invalidates("secret-tag:{number}")])
async def write(number: int) -> dict[str, int]:
    return {"number": number}


@app.get("/statistics")
async def statistics() -> dict[str, object]:
    now = cache.statistics()
    return {"applied": now.applied, "far": dict(now.l2), "refreshes": dict(now.refreshes)}
