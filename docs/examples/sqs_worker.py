import asyncio
import os

from fastapi_cacheinval import HTTPCache, Receipt
from fastapi_cacheinval.contrib.sqs import SQSSource

cache = HTTPCache.from_url(os.environ["REDIS_URL"], namespace="shop")


async def tell_the_cdn(receipt: Receipt) -> None:
    print("purged:", *receipt.tags)


source = SQSSource(
    cache,
    "https://sqs.eu-west-1.amazonaws.com/123456789012/purges",
    then=tell_the_cdn,  # the message is deleted once this has returned
    concurrency=2,
)

if __name__ == "__main__":
    asyncio.run(source.run())
