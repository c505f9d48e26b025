from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordBearer

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached

app = FastAPI()
app.add_middleware(CacheMiddleware, cache=HTTPCache())

oauth2_scheme = OAuth2PasswordBearer(tokenUrl="token")
REVOKED = {"token-of-mallory"}


def current_user(token: Annotated[str, Depends(oauth2_scheme)]) -> str:
    if token in REVOKED:
        raise HTTPException(401)
    return token


@app.get("/basket", dependencies=[cached(ttl=60, partition_by=oauth2_scheme)])
async def read_basket(user: Annotated[str, Depends(current_user)]) -> str:
    return f"the basket of {user}"
