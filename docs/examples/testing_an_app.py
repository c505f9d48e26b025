from fastapi import FastAPI
from fastapi.testclient import TestClient

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates
from fastapi_cacheinval.testing import FakeClock, assert_hit, assert_miss, capture_invalidations


def make_app(cache: HTTPCache) -> FastAPI:
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache)
    prices = {42: 30}

    @app.get("/prices/{product_id}", dependencies=[cached(ttl=60, jitter=0, tags=["price:{product_id}"])])
    async def read_price(product_id: int) -> int:
        return prices[product_id]

    @app.put("/prices/{product_id}", dependencies=[invalidates("price:{product_id}")])
    async def change_price(product_id: int, price: int) -> int:
        prices[product_id] = price
        return price

    return app


def test_a_price_is_kept_until_it_changes() -> None:
    with TestClient(make_app(HTTPCache())) as client:
        assert_miss(client.get("/prices/42"))
        assert_hit(client.get("/prices/42"))
        client.put("/prices/42?price=20")
        changed = client.get("/prices/42")
        assert_miss(changed)
        assert changed.json() == 20


def test_a_price_is_fetched_again_after_its_lifetime() -> None:
    clock = FakeClock()
    with TestClient(make_app(HTTPCache(clock=clock))) as client:
        assert_miss(client.get("/prices/42"))
        clock.tick(59)
        assert_hit(client.get("/prices/42"))
        clock.tick(1)
        assert_miss(client.get("/prices/42"))


def test_what_a_change_purges() -> None:
    cache = HTTPCache()
    with TestClient(make_app(cache)) as client, capture_invalidations(cache) as purges:
        client.put("/prices/42?price=20")
    assert [(purge.tags, purge.paths) for purge in purges] == [(("price:42",), ("/prices/42",))]
