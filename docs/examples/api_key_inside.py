from fastapi import FastAPI, Request, Response
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached


async def require_key(request: Request, call_next: RequestResponseEndpoint) -> Response:
    if request.headers.get("X-API-Key") != "secret":
        return Response("a key, please", status_code=401)
    return await call_next(request)


app = FastAPI()
app.add_middleware(BaseHTTPMiddleware, dispatch=require_key)  # inside the cache
app.add_middleware(CacheMiddleware, cache=HTTPCache())


@app.get("/page", dependencies=[cached(ttl=60, jitter=0)])
async def read_page() -> str:
    return "for those with a key"
