from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached

app = FastAPI()

# The last one added is the outermost: it sees a request first.
app.add_middleware(GZipMiddleware, minimum_size=500)  # inside: what is stored is compressed once
app.add_middleware(CacheMiddleware, cache=HTTPCache())
app.add_middleware(CORSMiddleware, allow_origins=["https://shop.example"])  # outside: made for each request
app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "shop.example"])  # outside: runs on hits too


@app.get("/page", dependencies=[cached(ttl=60, jitter=0)])
async def read_page() -> str:
    return "many words " * 100
