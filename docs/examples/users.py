import os
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordBearer
from pydantic import BaseModel

from fastapi_cacheinval import CacheMiddleware, HTTPCache, PartitionBy, cached

cache = HTTPCache.from_url(os.environ["REDIS_URL"], secret=os.environ["CACHEINVAL_SECRET"])
app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)


class User(BaseModel):
    id: int
    name: str


USERS = {"token-of-alice": User(id=1, name="alice"), "token-of-bob": User(id=2, name="bob")}
ORDERS: dict[int, list[str]] = {}


def get_current_user(token: Annotated[str, Depends(OAuth2PasswordBearer(tokenUrl="token"))]) -> User:
    if token not in USERS:
        raise HTTPException(401, "sign in first")
    return USERS[token]


CurrentUser = Annotated[User, Depends(get_current_user)]


@app.get("/orders", dependencies=[cached(ttl=60, partition_by=PartitionBy(get_current_user, key=lambda user: user.id))])
def read_orders(user: CurrentUser) -> dict[str, list[str]]:
    return {user.name: ORDERS.get(user.id, [])}


@app.post("/orders")
def order(product: str, user: CurrentUser) -> None:
    ORDERS.setdefault(user.id, []).append(product)
