from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import HTMLResponse

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached

app = FastAPI()
app.add_middleware(CacheMiddleware, cache=HTTPCache())

USERS = {"token-of-alice": "alice", "token-of-bob": "bob"}


def current_user(x_auth_token: Annotated[str, Header()]) -> str:
    if x_auth_token not in USERS:
        raise HTTPException(401, "sign in first")
    return USERS[x_auth_token]


@app.get("/account", dependencies=[cached(ttl=60, partition_by=current_user, request_is_shared=True)])
async def read_account(request: Request, user: Annotated[str, Depends(current_user)]) -> HTMLResponse:
    return HTMLResponse(f"<a href='{request.url_for('read_account')}'>{user}</a>")
