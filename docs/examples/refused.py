from typing import Annotated

from fastapi import Cookie, Depends, FastAPI

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached

app = FastAPI()
app.add_middleware(CacheMiddleware, cache=HTTPCache())


def current_user(session: Annotated[str, Cookie()]) -> str:
    return session


@app.get("/basket", dependencies=[cached(ttl=60)])
async def read_basket(user: Annotated[str, Depends(current_user)]) -> str:
    return f"the basket of {user}"
