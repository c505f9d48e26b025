import asyncio

from fastapi_cacheinval import HTTPCache, PurgeNotDelivered

cache = HTTPCache.from_url("redis://localhost:1/0")  # nobody listens there


async def main() -> None:
    async with cache:
        try:
            await cache.invalidate("products")
        except PurgeNotDelivered as error:
            print("queued:", error.queued, *error.tags)  # do not repeat it: it is written when Redis is back
        print("waiting:", cache.statistics().queue_length)


if __name__ == "__main__":
    asyncio.run(main())
