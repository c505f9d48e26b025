from fastapi import FastAPI, Request, Response
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached


async def greet(request: Request, call_next: RequestResponseEndpoint) -> Response:
    response = await call_next(request)
    if name := request.headers.get("X-Name"):
        response.headers["X-Greeting"] = f"hello {name}"
    return response


app = FastAPI()
app.add_middleware(BaseHTTPMiddleware, dispatch=greet)  # inside the cache
app.add_middleware(CacheMiddleware, cache=HTTPCache())


@app.get("/page", dependencies=[cached(ttl=60, jitter=0)])
async def read_page() -> str:
    return "the same for everybody"
