"""A worker: it purges what stands in an outbox, here and at a CDN, and forgets a row when the CDN has confirmed it."""

from __future__ import annotations

import asyncio
import os

from sqlalchemy.ext.asyncio import create_async_engine

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.cdn import CDNPurger, Fastly
from fastapi_cacheinval.contrib.outbox import Outbox, OutboxRelay


async def main() -> None:
    """Work until killed."""
    cache = HTTPCache.from_url(os.environ["REDIS_URL"])
    fastly = Fastly(os.environ["SERVICE"], os.environ["TOKEN"], api=os.environ["CDN_URL"])
    purger = CDNPurger(cache, fastly, again_after=0)
    cache.attach(purger)
    engine = create_async_engine(os.environ["DATABASE"])
    await OutboxRelay(cache, engine, Outbox(), poll=0.05, then=purger.purge).run()


if __name__ == "__main__":
    asyncio.run(main())
