"""A Varnish in front: it keeps what the app lets it keep, and is purged of what the app purges."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Header, HTTPException

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from fastapi_cacheinval.contrib.cdn import CDNPurger, Varnish, varnish_headers

varnish = Varnish("http://127.0.0.1:6081")
cache = HTTPCache()
cache.attach(CDNPurger(cache, varnish))  # what goes out

app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache, downstream=varnish_headers(varnish))  # what it is told


def staff(x_token: Annotated[str, Header()] = "") -> str:
    if x_token != "secret":
        raise HTTPException(401)
    return "staff"


@app.get(
    "/products/{product_id}",
    dependencies=[cached(ttl=300, jitter=0, stale_while_revalidate=3600, tags=["product:{product_id}"])],
)
async def read_product(product_id: int) -> int:
    return product_id


@app.get("/logo", dependencies=[cached(ttl=300, downstream_ttl=86_400, tags=["logo"])])
async def read_logo() -> str:
    return "a picture"  # a day at the CDN, which is purged when it changes


@app.get("/reports", dependencies=[cached(ttl=300, guarded_by=staff)])
async def read_reports() -> str:
    return "for those with a token alone"
