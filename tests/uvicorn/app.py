"""An app with a cached page, and a worker for gunicorn, for servers that are started by commands."""

from __future__ import annotations

from fastapi import FastAPI
from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]

from fastapi_cacheinval import CacheMiddleware, cached
from tests.uvicorn.serving import Counting

app = FastAPI()
app.add_middleware(CacheMiddleware)


@app.get("/items/{item}", dependencies=[cached(ttl=60)])
async def read(item: int) -> int:
    """A page."""
    return item


@app.get("/answered")
async def answered() -> int:
    """How often the protocol has answered in this process."""
    return Counting.answered


class CacheWorker(UvicornWorker):
    """As the page on uvicorn has it, with a protocol that counts."""

    CONFIG_KWARGS = {"loop": "auto", "http": "tests.uvicorn.serving:Counting"}  # noqa: RUF012 - as the worker has it
