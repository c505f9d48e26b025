from datetime import timedelta

from fastapi import APIRouter, FastAPI, HTTPException, Response

from fastapi_cacheinval import CacheMiddleware, CachePolicy, HTTPCache, ResponseToStore, cached

CATALOGUE = CachePolicy(
    ttl=300,
    stale_while_revalidate=timedelta(hours=1),
    stale_if_error=timedelta(days=1),
    tags=["catalogue"],
)

router = APIRouter(prefix="/catalogue", dependencies=[cached(CATALOGUE)])


@router.get("/brands")  # the router's policy
async def list_brands() -> list[str]:
    return ["acme"]


@router.get("/products/{product_id}", dependencies=[cached(CATALOGUE, ttl=60, tags=["product:{product_id}"])])
async def read_product(product_id: int) -> int:  # a ttl of its own, and both tags
    return product_id


@router.get("/stock", dependencies=[cached(ttl=0)])  # off
async def read_stock() -> int:
    return 7


coupons = APIRouter(prefix="/coupons")


@coupons.get("/{code}", dependencies=[cached(ttl=300, statuses={200: 300, 404: 10}, cache_control="max-age=10")])
async def read_coupon(code: str) -> str:
    if code != "SPRING":
        raise HTTPException(404, "no such coupon")  # kept, for ten seconds
    return code


def is_complete(response: ResponseToStore) -> bool:
    return response.header("x-partial") is None and response.body != b"[]"


@coupons.get("/", dependencies=[cached(ttl=300, ttl_from_response=True, should_store=is_complete)])
async def list_coupons(response: Response) -> list[str]:
    response.headers["Cache-Control"] = "max-age=30"  # shorter than the ttl: it counts
    return ["SPRING"]


app = FastAPI()
app.add_middleware(CacheMiddleware, cache=HTTPCache())
app.include_router(router)
app.include_router(coupons)
