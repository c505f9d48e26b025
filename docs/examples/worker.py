import asyncio
import os

from fastapi_cacheinval import HTTPCache

cache = HTTPCache.from_url(os.environ["REDIS_URL"], namespace="shop")


async def import_prices() -> None:
    async with cache:  # publishes only: it takes no lease, and nobody waits for it
        receipt = await cache.invalidate("products", wait="all")
    print(f"line {receipt.seq}, applied by {receipt.replicas} replicas")


if __name__ == "__main__":
    asyncio.run(import_prices())
