import asyncio
import os

from sqlalchemy.ext.asyncio import create_async_engine

from fastapi_cacheinval import HTTPCache, Receipt
from fastapi_cacheinval.contrib.outbox import Outbox, OutboxRelay, UnreadableRow
from fastapi_cacheinval.sources import DROP, Unread


async def purged(receipt: Receipt) -> None:
    """Awaited before the rows are deleted: what it raises has them purged again."""
    print("line", receipt.seq)


async def unreadable(row: UnreadableRow, error: Exception) -> Unread:
    """What somebody wrote that is no list of tags."""
    print("row", row.id, error)
    return DROP


def relay() -> OutboxRelay:
    engine = create_async_engine(os.environ["DATABASE_URL"])
    cache = HTTPCache.from_url(os.environ["REDIS_URL"], namespace="shop")
    return OutboxRelay(cache, engine, Outbox(), then=purged, on_unreadable=unreadable)


if __name__ == "__main__":
    asyncio.run(relay().run())
