from datetime import UTC, datetime

from fastapi import FastAPI, Response

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached

app = FastAPI()
app.add_middleware(CacheMiddleware, cache=HTTPCache())


@app.get("/plain", dependencies=[cached(ttl=60, jitter=0)])
async def read_plain() -> str:
    return "plain"


@app.get("/browser", dependencies=[cached(ttl=60, jitter=0, cache_control="max-age=10")])
async def read_for_browsers() -> str:
    return "a browser may keep this for ten seconds"


@app.get("/dated", dependencies=[cached(ttl=60, jitter=0)])
async def read_dated(response: Response) -> str:
    response.headers["Last-Modified"] = datetime(2026, 1, 1, tzinfo=UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    response.headers["ETag"] = '"first"'
    return "dated"


@app.get("/translated", dependencies=[cached(ttl=60, jitter=0)])
async def read_translated(response: Response) -> str:
    response.headers["Vary"] = "Accept-Language"
    return "in the language that was asked for"


@app.get("/login", dependencies=[cached(ttl=60, jitter=0)])
async def log_in(response: Response) -> str:
    response.set_cookie("session", "secret")
    return "never stored"
