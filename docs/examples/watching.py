from fastapi import FastAPI

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached

cache = HTTPCache()
app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)


@app.get("/page", dependencies=[cached(ttl=60)])
async def read_page() -> str:
    return "page"


@app.get("/cache")  # keep it behind your own guard
async def show_cache() -> dict[str, object]:
    now = cache.statistics()
    return {
        "responses": now.responses,
        "full": now.size_bytes / now.max_bytes > 0.9,
        "hits": now.hits,
        "misses": now.misses,
        "fills": now.fills,
        "purges": now.purges,
    }
