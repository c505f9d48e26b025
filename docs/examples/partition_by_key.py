from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException

from fastapi_cacheinval import CacheMiddleware, HTTPCache, PartitionBy, cached

app = FastAPI()
app.add_middleware(CacheMiddleware, cache=HTTPCache())


@dataclass
class User:
    id: int
    team: str


USERS = {"token-of-alice": User(1, "sales"), "token-of-anna": User(2, "sales"), "token-of-bob": User(3, "stock")}


def current_user(x_auth_token: Annotated[str, Header()]) -> User:
    if x_auth_token not in USERS:
        raise HTTPException(401, "sign in first")
    return USERS[x_auth_token]


def team_of(user: User) -> str:
    return user.team


@app.get("/board", dependencies=[cached(ttl=60, partition_by=PartitionBy(current_user, key=team_of))])
async def read_board(user: Annotated[User, Depends(current_user)]) -> str:
    return f"the board of {user.team}"


@app.get("/magazine", dependencies=[cached(ttl=60, vary=["X-Edition-Key"])])
async def read_magazine(x_edition_key: Annotated[str, Header()] = "north") -> str:
    return f"the {x_edition_key} edition"
