from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI
from sqlalchemy import StaticPool, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes


class Base(DeclarativeBase):
    pass


class Product(Base):
    __tablename__ = "product"
    id: Mapped[int] = mapped_column(primary_key=True)
    price: Mapped[int]


cache = HTTPCache()
engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
open_session = async_sessionmaker(engine)

coarse = {mapper.class_: ["shop"] for mapper in Base.registry.mappers}
collect_changes(open_session, cache, {**coarse, Product: ["shop", "product:{id}"]})

shop = APIRouter(dependencies=[cached(ttl=300, tags=["shop"])])  # any commit purges these pages


async def committing_session() -> AsyncIterator[AsyncSession]:
    async with open_session() as session:
        yield session
        await session.commit()


Session = Annotated[AsyncSession, Depends(committing_session, scope="function")]


@shop.get("/prices/total")
async def read_total(session: Session) -> int:
    return await session.scalar(select(func.sum(Product.price))) or 0


@shop.get("/products/{product_id}", dependencies=[cached(ttl=300, tags=["product:{product_id}"])])  # refined
async def read_product(product_id: int, session: Session) -> int:
    return (await session.get_one(Product, product_id)).price


@shop.put("/products/{product_id}")
async def change_price(product_id: int, price: int, session: Session) -> int:
    (await session.get_one(Product, product_id)).price = price
    return price


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with open_session() as session:
        session.add_all([Product(id=1, price=30), Product(id=2, price=50)])
        await session.commit()
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)
app.add_middleware(CacheMiddleware, cache=cache)
app.include_router(shop)
