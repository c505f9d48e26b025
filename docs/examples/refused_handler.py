from fastapi import FastAPI, Request

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached

app = FastAPI()
app.add_middleware(CacheMiddleware, cache=HTTPCache())


@app.get("/language", dependencies=[cached(ttl=60)])
async def read_language(request: Request) -> str:
    return request.headers.get("Accept-Language", "en")
