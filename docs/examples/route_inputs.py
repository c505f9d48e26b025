from enum import StrEnum
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.security import OAuth2PasswordBearer

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached

app = FastAPI()
app.add_middleware(CacheMiddleware, cache=HTTPCache())

USERS = {"token-of-alice": "alice", "token-of-bob": "bob"}
bearer = OAuth2PasswordBearer(tokenUrl="token")


def current_user(token: Annotated[str, Depends(bearer)]) -> str:
    if token not in USERS:
        raise HTTPException(401, "sign in first")
    return USERS[token]


def require_admin(user: Annotated[str, Depends(current_user)]) -> None:
    if user != "alice":
        raise HTTPException(403, "administrators only")


class Language(StrEnum):
    EN = "en"
    FR = "fr"


@app.get("/search", dependencies=[cached(ttl=60)])
async def search(q: str, page: int = 1) -> str:
    return f"{q}, page {page}"


@app.get("/greeting", dependencies=[cached(ttl=60)])
async def greet(x_language: Annotated[Language, Header()] = Language.EN) -> str:
    return {"en": "hello", "fr": "bonjour"}[x_language]


@app.get("/basket", dependencies=[cached(ttl=60, partition_by=current_user)])
async def read_basket(user: Annotated[str, Depends(current_user)]) -> str:
    return f"the basket of {user}"


@app.get("/report", dependencies=[cached(ttl=60, guarded_by=require_admin)])
async def read_report() -> str:
    return "the same for every administrator"


@app.get("/terms", dependencies=[cached(ttl=60, shared=True), Depends(current_user)])
async def read_terms() -> str:
    return "the same for everybody; a hit does not ask who it is"
