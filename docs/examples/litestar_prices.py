from typing import Any

from litestar import Litestar, Request, Response, get, put

from fastapi_cacheinval import CacheMiddleware, HTTPCache, add_tags

cache = HTTPCache()
PRICES = {42: 30}


@get("/prices")
async def list_prices() -> Response[dict[int, int]]:
    return Response(PRICES, headers={"Cache-Control": "s-maxage=300", "Surrogate-Key": "prices"})


@put("/prices/{product_id:int}")
async def change_price(request: Request[Any, Any, Any]) -> None:
    PRICES[request.path_params["product_id"]] = int(request.query_params["price"])
    add_tags("prices")


site = Litestar([list_prices, change_price], logging_config=None)
app = CacheMiddleware(site, cache=cache, honour_headers=True)
