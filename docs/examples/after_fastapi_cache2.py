from fastapi import FastAPI

from fastapi_cacheinval import CacheMiddleware, CachePolicy, HTTPCache, cached, invalidates

cache = HTTPCache(namespace="shop")  # was: FastAPICache.init(InMemoryBackend(), prefix="shop")
app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)

PRICES = {42: 30}


@app.get("/prices/{product_id}", dependencies=[cached(ttl=60, tags=["prices"])])
async def read_price(product_id: int) -> int:  # was: @cache(expire=60, namespace="prices")
    return PRICES[product_id]


@app.put("/prices/{product_id}", dependencies=[invalidates("prices")])
async def change_price(product_id: int, price: int) -> int:
    PRICES[product_id] = price
    return price  # was: await FastAPICache.clear(namespace="prices")


NOTHING_NEW = CachePolicy(ttl=60, jitter=0, early_refresh=0)  # as plain as expire=60
