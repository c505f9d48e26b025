import asyncio
import os

from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastapi_cacheinval import CacheMiddleware, HTTPCache, Receipt, cached
from fastapi_cacheinval.contrib.outbox import Outbox, OutboxRelay


class Base(DeclarativeBase):
    pass


class Product(Base):
    __tablename__ = "product"
    id: Mapped[int] = mapped_column(primary_key=True)
    price: Mapped[int]


engine = create_async_engine(f"sqlite+aiosqlite:///{os.environ['PRICES']}/shop.db")
outbox = Outbox(metadata=Base.metadata)  # create_all and Alembic find its table where they find yours

cache = HTTPCache.from_url(os.environ["REDIS_URL"], namespace="shop")
relay = OutboxRelay(cache, engine, outbox)
cache.attach(relay)  # it runs while the app does

app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)


@app.get("/products/{product_id}", dependencies=[cached(ttl=300, tags=["product:{product_id}", "products"])])
async def read_product(product_id: int) -> int:
    async with AsyncSession(engine) as session:
        return (await session.get_one(Product, product_id)).price


async def change_price(product_id: int, price: int) -> None:
    async with AsyncSession(engine) as session:
        await session.merge(Product(id=product_id, price=price))
        await outbox.add_async(session, f"product:{product_id}", "products")
        await session.commit()  # the price and what is to be purged, or neither
    relay.wake()  # PostgreSQL does that by itself


async def main() -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    purged = asyncio.Queue[Receipt]()
    cache.add_listener(purged.put)
    async with cache:
        await change_price(42, 25)
        print("purged:", *(await purged.get()).tags)
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
