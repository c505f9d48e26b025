import asyncio

from fastapi_cacheinval import HTTPCache, Receipt


class Inbox:
    """Tags that other tasks of this process put in are purged for as long as the cache runs."""

    def __init__(self, cache: HTTPCache) -> None:
        self.cache = cache
        self.changes = asyncio.Queue[list[str]]()

    async def __aenter__(self) -> None:
        self.task = asyncio.create_task(self.work())

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()

    async def work(self) -> None:
        while True:
            tags = await self.changes.get()
            await self.cache.deliver(*tags)  # returns once the purge has its number, however long Redis is away
            self.changes.task_done()


cache = HTTPCache()
inbox = Inbox(cache)
cache.attach(inbox)


async def main() -> None:
    purged = asyncio.Queue[Receipt]()
    cache.add_listener(purged.put)
    async with cache:
        await inbox.changes.put(["product:42"])
        print("purged:", *(await purged.get()).tags)


if __name__ == "__main__":
    asyncio.run(main())
