import os

from fastapi import FastAPI

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates
from fastapi_cacheinval.contrib.cdn import CDNPurger, Fastly

PRICES = {42: 30, 43: 25}

cache = HTTPCache()  # with replicas: HTTPCache.from_url("redis://...")
fastly = Fastly("SU1Z0isxPaozGVKXdv0eY", os.environ.get("FASTLY_TOKEN", "no-token"))
cache.attach(CDNPurger(cache, fastly))

app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)


@app.get("/prices/{product_id}", dependencies=[cached(ttl=300, tags=["product:{product_id}"])])
async def read_price(product_id: int) -> int:
    return PRICES[product_id]


@app.put("/prices/{product_id}", dependencies=[invalidates("product:{product_id}")])
async def change_price(product_id: int, price: int) -> None:
    PRICES[product_id] = price
