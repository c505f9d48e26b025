"""An app whose routes say `shared=True` where that is not so, and one that a layer outside of the cache steers."""

from contextvars import ContextVar
from itertools import count
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException, Request

from fastapi_cacheinval import CacheMiddleware, HTTPCache, PartitionBy, cached

cache = HTTPCache()
app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)
tenant: ContextVar[str] = ContextVar("tenant", default="nobody's")
prices = {1: 30}
numbers = count()


class Tenants:
    """Outside of the cache: whose request it is, for everything inside."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        token = tenant.set(dict(scope.get("headers", ())).get(b"x-tenant", b"nobody's").decode())
        try:
            await self.app(scope, receive, send)
        finally:
            tenant.reset(token)


app.add_middleware(Tenants)


def current_user(authorization: Annotated[str, Header()] = "") -> str:
    if not authorization:
        raise HTTPException(401, "who are you?")
    return authorization.removeprefix("Bearer ")


@app.get("/me", dependencies=[cached(ttl=60, shared=True)])
async def read_me(user: Annotated[str, Depends(current_user)]) -> str:
    return user


@app.get("/mine", dependencies=[cached(ttl=60, partition_by=current_user)])
async def read_mine(user: Annotated[str, Depends(current_user)]) -> str:
    return user


@app.get("/coarse", dependencies=[cached(ttl=60, partition_by=PartitionBy(current_user, key=lambda user: user[:1]))])
async def read_coarse(user: Annotated[str, Depends(current_user)]) -> str:
    return user


@app.get("/checked", dependencies=[cached(ttl=60, shared=True), Depends(current_user)])
async def read_checked() -> str:
    return "for users"


@app.get("/guarded", dependencies=[cached(ttl=60, guarded_by=current_user)])
async def read_guarded() -> str:
    return "for users"


@app.get("/tenant", dependencies=[cached(ttl=60)])
async def read_tenant() -> str:
    return tenant.get()


@app.get("/request", dependencies=[cached(ttl=60, request_is_shared=True)])
async def read_request(request: Request) -> str:
    return request.headers.get("x-plan", "free")


@app.get("/prices/{product_id}", dependencies=[cached(ttl=60, tags=["price:{product_id}"])])
async def read_price(product_id: int) -> int:
    return prices[product_id]


@app.get("/plain", dependencies=[cached(ttl=60)])
async def read_plain() -> int:
    return prices[1]


@app.get("/soft", dependencies=[cached(ttl=60, tags=["soft"], stale_while_revalidate=60)])
async def read_soft() -> int:
    return prices[1]


@app.put("/prices/{product_id}")
async def change_price(product_id: int, price: int) -> None:
    prices[product_id] = price


@app.get("/number", dependencies=[cached(ttl=60)])
async def read_number() -> int:
    return next(numbers)


@app.get("/fails", dependencies=[cached(ttl=60)])
async def read_fails() -> int:
    if next(numbers):
        raise RuntimeError("not again")
    return 1


@app.get("/uncached")
async def read_uncached() -> int:
    return next(numbers)
