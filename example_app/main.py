"""The application: ``uvicorn example_app.main:app``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from example_app.db import database
from example_app.routes import account, pages, products, reports
from example_app.seed import seed
from fastapi_cacheinval import CacheMiddleware, HTTPCache


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Open the database, filled, for as long as the app runs."""
    await database.open()
    try:
        async with database.session() as session:
            await seed(session)
        yield
    finally:
        await database.close()


def create_app() -> FastAPI:
    """Make the showroom with a cache of its own, which starts and stops with the app."""
    app = FastAPI(title="Showroom", lifespan=lifespan)
    # A commit to a file may take long on a busy disk; until it is there, the answer of a mutation waits.
    app.add_middleware(CacheMiddleware, cache=HTTPCache(hold_timeout=1))
    for module in (pages, products, account, reports):
        app.include_router(module.router)
    return app


app = create_app()
