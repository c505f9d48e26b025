"""The application: ``uvicorn example_app.main:app --http fastapi_cacheinval.uvicorn:CacheProtocol``.

With REDIS_URL any number of its processes are one shop; they share EXAMPLE_DB and EXAMPLE_SECRET too. VARNISH_URL is a
Varnish in front of it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from example_app import telemetry
from example_app.db import database
from example_app.inspecting import operator
from example_app.replicas import OneOfMany, replica_urls
from example_app.routes import account, pages, products, reports
from example_app.security import shared_secret
from example_app.seed import seed
from example_app.varnish import varnish_in_front
from fastapi_cacheinval import CacheMiddleware, HTTPCache
from fastapi_cacheinval.inspector import Inspector

NAMESPACE = "showroom"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the database, filled, and watch what is written to it, for as long as the app runs."""
    await database.open()
    try:
        async with database.session(writes=True) as session:
            await seed(session)
        changes = database.watch(app.state.cache)
        yield
        changes.stop()
    finally:
        await database.close()


def create_app() -> FastAPI:
    """Make the showroom with a cache of its own, which starts and stops with the app."""
    telemetry.print_to_console()
    app = FastAPI(title="Showroom", lifespan=lifespan, telemetry=telemetry.config())
    cache = HTTPCache.from_url(
        os.environ.get("REDIS_URL") or "memory://",
        namespace=NAMESPACE,
        # The same on every replica: baskets are kept apart by a digest that it keys.
        secret=shared_secret("cache"),
        # A commit to a file may take long on a busy disk; until it is there, the answer of a mutation waits.
        hold_timeout=1,
    )
    app.state.cache = cache
    urls = replica_urls()
    # A hit inside the server skips OneOfMany, which does nothing for who asks for the shop by its own name.
    app.add_middleware(CacheMiddleware, cache=cache, downstream=varnish_in_front(cache), front=True if urls else None)
    if urls:
        app.add_middleware(OneOfMany)
        # The page of one replica may ask the others.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=urls,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Age", "Cache-Status", "Cacheinval-Purge", "X-Replica"],
        )
    for module in (pages, products, account, reports):
        app.include_router(module.router)
    app.mount("/_cache", Inspector(cache, guard=operator))
    return app


app = create_app()
