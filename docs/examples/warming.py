import asyncio

from fastapi import FastAPI

from fastapi_cacheinval import CacheMiddleware, HTTPCache, UnknownRoute, WarmReport, cached

cache = HTTPCache()
app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)
PRICES = {42: 20}


@app.get("/products/{product_id}", dependencies=[cached(ttl=300, tags=["product:{product_id}"])])
async def read_product(product_id: int, currency: str = "eur") -> str:
    return f"{PRICES[product_id]} {currency}"


@app.get("/front-page", dependencies=[cached(ttl=300)])
async def front_page() -> str:
    return "Welcome."


async def warm_after_start() -> WarmReport:
    report = await cache.warm(
        ["/products/42?currency=usd", "front_page", ("read_product", {"product_id": 42})],
        base_url="https://shop.example",  # as clients send it: the host is a part of the cache key
    )
    for result in report.missing:
        print(result.url, result.outcome, result.status, result.detail)
    return report


async def import_prices() -> None:
    PRICES[42] = 25
    await cache.invalidate_route("read_product", product_id=42)  # wrong from now on
    await cache.refresh_url("https://shop.example/front-page")  # may be old until the new one is there


async def test_the_pages_are_there() -> None:
    async with app.router.lifespan_context(app), cache:
        await app({"type": "http", "method": "GET", "path": "/", "headers": []}, _nothing, _ignored)
        assert (await warm_after_start()).ready == 3
        await import_prices()
        assert [result.outcome for result in (await warm_after_start()).results] == ["stored", "found", "stored"]
        try:
            await cache.invalidate_route("read_products", product_id=42)
        except UnknownRoute as error:
            assert error.near == ("read_product",)  # noqa: PT017


async def _nothing() -> dict[str, object]:
    return {"type": "http.request"}


async def _ignored(_message: object) -> None:
    await asyncio.sleep(0)
