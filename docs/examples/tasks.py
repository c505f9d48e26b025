import os

from fastapi_cacheinval import HTTPCache

cache = HTTPCache.from_url(os.environ["REDIS_URL"], namespace="shop")  # as the app has it
PRICES: dict[int, int] = {}


# @shared_task(autoretry_for=(PurgeNotDelivered,), retry_backoff=True) of Celery
def change_price(product_id: int, price: int) -> None:
    PRICES[product_id] = price  # and commit
    receipt = cache.invalidate_sync(f"price:{product_id}", "prices")
    print("purged:", *receipt.tags)


if __name__ == "__main__":
    change_price(42, 20)
