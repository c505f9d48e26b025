from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Response

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates, invalidates_nothing, purge_with_request

cache = HTTPCache()
app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)

PRICES = {42: 30}


class Session:
    """Stands for a database session: others see what it wrote from its commit on."""

    def __init__(self) -> None:
        self.written: dict[int, int] = {}

    def commit(self) -> None:
        PRICES.update(self.written)


async def open_session() -> AsyncIterator[Session]:
    session = Session()
    yield session
    session.commit()  # FastAPI runs this after the handler's response has been handed on


@app.get("/prices", dependencies=[cached(ttl=300, tags=["prices"])])
async def list_prices() -> dict[int, int]:
    return PRICES


@app.get("/prices/{product_id}", dependencies=[cached(ttl=300, stale_while_revalidate=60, tags=["price:{product_id}"])])
async def read_price(product_id: int) -> int:
    if product_id not in PRICES:
        raise HTTPException(404, "no such product")
    return PRICES[product_id]


# Purged: the tag, the path /prices/42 and its parent collection /prices.
@app.put("/prices/{product_id}", dependencies=[invalidates("price:{product_id}")])
async def change_price(product_id: int, price: int, session: Annotated[Session, Depends(open_session)]) -> int:
    if price < 0:
        raise HTTPException(400, "a price is not negative")  # an error status purges nothing
    session.written[product_id] = price
    return price


# Purged without a declaration: /prices, the target path, and the path in Location.
@app.post("/prices", status_code=201)
async def add_price(product_id: int, price: int, response: Response) -> int:
    PRICES[product_id] = price
    response.headers["Location"] = f"/prices/{product_id}"
    return price


# Purged: the tag, and neither /prices/42/views nor /prices/42.
@app.post("/prices/{product_id}/views", dependencies=[invalidates("views:{product_id}", paths=False)])
async def count_view(product_id: int) -> None: ...


# A search whose question is too long for a URL: it only reads, and purges nothing.
@app.post("/prices/search", dependencies=[invalidates_nothing()])
async def search_prices(above: int) -> list[int]:
    return [product_id for product_id, price in PRICES.items() if price > above]


@app.post("/recount", dependencies=[invalidates("prices", soft=True)], status_code=202)
async def recount() -> None:
    """Old answers are good enough until new ones have been made."""


@app.post("/imports")
async def import_prices() -> int:
    PRICES.update({43: 25, 44: 12})
    receipt = await cache.invalidate("prices", "price:43", "price:44")
    return receipt.seq


@app.post("/imports/file")
def import_file() -> int:  # a plain function, which FastAPI runs in a thread
    PRICES[45] = 8
    return cache.invalidate_sync("prices", "price:45").seq


async def commit(*tags: str) -> None:
    """Call it when the transaction is committed, from anywhere."""
    if not purge_with_request(*tags):
        await cache.invalidate(*tags)  # no unsafe request here, or its answer has gone
