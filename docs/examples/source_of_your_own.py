import asyncio
import json
from typing import Any

from fastapi_cacheinval import HTTPCache, Receipt
from fastapi_cacheinval.sources import Change, Source


class Broker:
    """Stands in for RabbitMQ: a message that is not acknowledged is handed out again."""

    def __init__(self) -> None:
        self.ready = asyncio.Queue[bytes]()

    async def get(self) -> bytes:
        return await self.ready.get()

    async def ack(self, message: bytes) -> None:
        self.ready.task_done()

    async def nack(self, message: bytes) -> None:
        await self.ready.put(message)


class BrokerSource(Source):
    def __init__(self, cache: HTTPCache, broker: Broker, **options: Any) -> None:
        super().__init__(cache, "broker", **options)
        self.broker = broker

    async def serve(self) -> None:  # connect here; what it raises is told, and it is called again after a pause
        while True:
            message = await self.broker.get()
            self.count(received=1)
            outcome, why = await self.handle(message, tags)
            if outcome.over:
                await self.broker.ack(message)
                self.count(done=1)
                self.well()
            else:
                self.troubled(why)
                await self.rest(1.0)
                await self.broker.nack(message)


def tags(message: bytes) -> list[str]:
    return [f"product:{json.loads(message)['product_id']}", "products"]


async def unreadable(message: bytes, error: Exception) -> Change:
    return Change(("products",))  # nobody knows which product it was


cache = HTTPCache()
broker = Broker()
cache.attach(BrokerSource(cache, broker, on_unreadable=unreadable))


async def main() -> None:
    purged = asyncio.Queue[Receipt]()
    cache.add_listener(purged.put)
    async with cache:
        for message in (b'{"product_id": 42}', b"nonsense"):
            await broker.ready.put(message)
            print("purged:", *(await purged.get()).tags)
        await broker.ready.join()


if __name__ == "__main__":
    asyncio.run(main())
