import json

from fastapi import FastAPI

from fastapi_cacheinval import CacheMiddleware, HTTPCache
from fastapi_cacheinval.contrib.kafka import KafkaSource, PoisonRecord, Record
from fastapi_cacheinval.sources import Change

cache = HTTPCache.from_url("redis://localhost:6379/0")
app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)


def tags(record: Record) -> list[str]:
    if record.value is None:
        raise PoisonRecord("A price has no value.")
    price = json.loads(record.value)
    return [f"product:{price['product_id']}", "products"]


async def unreadable(record: Record, error: Exception) -> Change:
    return Change(("products",))  # nobody knows which product it was


CONFIG = {"bootstrap.servers": "kafka.internal:9092", "group.id": "shop-cache"}
cache.attach(KafkaSource(cache, CONFIG, ["prices"], tags=tags, on_unreadable=unreadable))
