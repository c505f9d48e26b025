from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from fastapi_cacheinval import CacheMiddleware, HTTPCache, add_tags

cache = HTTPCache()
PRICES = {"42": 30}


async def list_prices(_: Request) -> JSONResponse:
    return JSONResponse(PRICES, headers={"Cache-Control": "s-maxage=300", "Surrogate-Key": "prices"})


async def change_price(request: Request) -> JSONResponse:
    PRICES[request.path_params["product_id"]] = int(request.query_params["price"])
    add_tags("prices")  # purged with this PUT, beside its own path
    return JSONResponse(PRICES)


app = Starlette(
    routes=[Route("/prices", list_prices), Route("/prices/{product_id}", change_price, methods=["PUT"])],
    middleware=[Middleware(CacheMiddleware, cache=cache, honour_headers=True)],
)
