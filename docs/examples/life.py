import asyncio

from fastapi_cacheinval import HTTPCache, Receipt

cache = HTTPCache()


async def tell_the_search(receipt: Receipt) -> None:
    print("purged:", *receipt.tags)


cache.add_listener(tell_the_search)


async def main() -> None:
    async with cache:  # without the middleware: a script, a worker, a test
        receipt = await cache.invalidate("product:42", "products")
        print("number:", receipt.seq)


if __name__ == "__main__":
    asyncio.run(main())
