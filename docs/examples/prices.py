import os
from pathlib import Path

from fastapi import FastAPI

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates

cache = HTTPCache.from_url(os.environ["REDIS_URL"], namespace="prices", read_your_writes=True)
app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)


def row(product_id: int) -> Path:
    return Path(os.environ["PRICES"], str(product_id))  # stands for a database that all replicas use


@app.get("/prices/{product_id}", dependencies=[cached(ttl=300, tags=["price:{product_id}"])])
def read_price(product_id: int) -> int:
    return int(row(product_id).read_text())


@app.put("/prices/{product_id}", dependencies=[invalidates("price:{product_id}")])
def change_price(product_id: int, price: int) -> int:
    row(product_id).write_text(str(price))
    return price
