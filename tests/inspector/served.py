"""An app with an inspector, for real servers: `uvicorn tests.inspector.served:app`."""

from __future__ import annotations

from fastapi import FastAPI

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from fastapi_cacheinval.inspector import Inspector

cache = HTTPCache()
app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)
app.mount("/_cache", Inspector(cache, debug=True))


@app.get("/items/{item}", dependencies=[cached(ttl=60)])
async def read(item: str) -> str:
    """Answer with what was asked for."""
    return item
