"""A cache with its inspector at `/_cache/`, for whoever knows the password."""

import os
import secrets
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates
from fastapi_cacheinval.inspector import Inspector

cache = HTTPCache()
app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)

password = os.environ.get("INSPECTOR_PASSWORD") or secrets.token_urlsafe()


async def operator(who: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]) -> None:
    if not secrets.compare_digest(who.password.encode(), password.encode()):
        raise HTTPException(401, "sign in first", {"WWW-Authenticate": "Basic"})


app.mount("/_cache", Inspector(cache, guard=operator))


@app.get("/products/{product_id}", dependencies=[cached(ttl=60, tags=["product:{product_id}"])])
async def read_product(product_id: int) -> dict[str, int]:
    return {"id": product_id}


@app.put("/products/{product_id}", dependencies=[invalidates("product:{product_id}")])
async def update_product(product_id: int) -> None: ...
