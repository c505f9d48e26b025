import asyncio
import os

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.kafka import KafkaSource, Record, debezium

tags = debezium(
    {
        "products": ["product:{id}", "brand:{brand_id}", "products"],
        "public.prices": ["product:{product_id}"],
    }
)

EVENT = b"""{
  "op": "u",
  "source": {"db": "shop", "schema": "public", "table": "products"},
  "before": {"id": 42, "brand_id": 7, "name": "Lamp"},
  "after": {"id": 42, "brand_id": 8, "name": "Lamp"}
}"""


async def main() -> None:
    cache = HTTPCache.from_url(os.environ["REDIS_URL"])
    config = {"bootstrap.servers": os.environ["KAFKA"], "group.id": "shop-cache"}
    await KafkaSource(cache, config, ["shop.public.products", "shop.public.prices"], tags=tags).run()


if __name__ == "__main__":
    if "KAFKA" in os.environ:
        asyncio.run(main())
    else:
        print(*sorted(tags(Record("shop.public.products", 0, 0, value=EVENT)) or ()))
