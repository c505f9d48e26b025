from fastapi import FastAPI

from fastapi_cacheinval import CacheMiddleware, HTTPCache
from fastapi_cacheinval.inspector import Inspector

cache = HTTPCache()
app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)
app.mount("/_cache", Inspector(cache, debug=True))  # this machine alone
