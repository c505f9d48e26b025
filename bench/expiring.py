"""An app whose one hot response expires again and again, and counts how often its handler runs for it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi import FastAPI

from bench.apps import content
from fastapi_cacheinval import CacheMiddleware, CachePolicy, cached

__all__ = ["HANDLER_SECONDS", "MODES", "expiring_app"]

HANDLER_SECONDS = 0.1

# What a policy can do about an expiry, and what it is compared with.
MODES = {
    "stale-while-revalidate": {"stale_while_revalidate": 60, "early_refresh": 0},
    "early refresh": {"stale_while_revalidate": 0, "early_refresh": 1.0},
    "neither": {"stale_while_revalidate": 0, "early_refresh": 0},
    "nothing expires": {"stale_while_revalidate": 0, "early_refresh": 0},
}


def expiring_app(mode: str, ttl_ms: int) -> FastAPI:
    """`/items/{item_id}` with a handler of 100 ms; `/calls` tells when each call of it began."""
    app = FastAPI()
    app.add_middleware(CacheMiddleware)
    item = content(1024)
    calls: list[float] = []
    policy = CachePolicy(ttl=86_400 if mode == "nothing expires" else ttl_ms / 1000, jitter=0, **MODES[mode])  # type: ignore[arg-type]

    @app.get("/items/{item_id}", dependencies=[cached(policy, tags=["items"])])
    async def read_item(item_id: int) -> dict[str, Any]:
        calls.append(time.monotonic())
        await asyncio.sleep(HANDLER_SECONDS)
        return item

    @app.get("/calls")
    async def read_calls() -> list[float]:
        return calls

    return app
