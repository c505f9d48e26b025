import json
import os

from fastapi import FastAPI

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from fastapi_cacheinval.contrib.sqs import Message, PoisonMessage, SQSSource
from fastapi_cacheinval.sources import KEEP, Unread

cache = HTTPCache.from_url(os.environ["REDIS_URL"], namespace="shop")


def changed(message: Message) -> list[str]:
    if message.detail_type == "catalogue imported":
        return ["products"]
    return [f"product:{message.json()['product_id']}"]


async def unreadable(message: Message, error: PoisonMessage) -> Unread:
    print(f"{message.id} from {message.source or message.topic or 'the queue'}: {error}")
    return KEEP  # for the dead-letter queue


QUEUE = "https://sqs.eu-west-1.amazonaws.com/123456789012/price-changes"
source = SQSSource(cache, QUEUE, tags=changed, on_unreadable=unreadable)
cache.attach(source)  # it lives as long as the app

app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)


@app.get("/products/{product_id}", dependencies=[cached(ttl=300, tags=["product:{product_id}", "products"])])
async def read_product(product_id: int) -> dict[str, int]:
    return {"product_id": product_id}


def test_events_become_tags() -> None:
    event = {"source": "shop", "detail-type": "price changed", "detail": {"product_id": 42}}
    message = Message.of({"MessageId": "1", "Body": json.dumps(event)})
    assert message.envelopes == ("eventbridge",)
    assert changed(message) == ["product:42"]
