import asyncio
import os

from sqlalchemy.ext.asyncio import create_async_engine

from fastapi_cacheinval import HTTPCache, Receipt
from fastapi_cacheinval.contrib.outbox import Outbox, OutboxRelay, UnreadableRow


async def purged(receipt: Receipt) -> None:
    """Awaited before the rows are deleted: what it raises has them purged again."""
    print("line", receipt.seq)


async def unreadable(row: UnreadableRow) -> None:
    """What somebody wrote that is no list of tags; it is deleted when this returns."""
    print("row", row.id, row.reason)


def relay() -> OutboxRelay:
    engine = create_async_engine(os.environ["DATABASE_URL"])
    cache = HTTPCache.from_url(os.environ["REDIS_URL"], namespace="shop")
    return OutboxRelay(cache, engine, Outbox(), then=purged, on_poison=unreadable)


if __name__ == "__main__":
    asyncio.run(relay().run())
