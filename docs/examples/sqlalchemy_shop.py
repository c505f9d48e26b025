from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI
from sqlalchemy import ForeignKey, StaticPool, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from fastapi_cacheinval import CacheMiddleware, CacheTags, HTTPCache, cached
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes


class Base(DeclarativeBase):
    pass


class Product(Base):
    __tablename__ = "product"
    id: Mapped[int] = mapped_column(primary_key=True)
    brand: Mapped[str]
    price: Mapped[int]


class Review(Base):
    __tablename__ = "review"
    id: Mapped[int] = mapped_column(primary_key=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("product.id"))
    product: Mapped[Product] = relationship()

    def __cache_tags__(self) -> list[str]:
        return [f"reviews:{self.product.brand}"]


cache = HTTPCache()
engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
open_session = async_sessionmaker(engine)
collect_changes(open_session, cache, {Product: ["product:{id}", "brand:{brand}"]})


async def committing_session() -> AsyncIterator[AsyncSession]:
    async with open_session() as session:
        yield session
        await session.commit()


Session = Annotated[AsyncSession, Depends(committing_session, scope="function")]  # commits before the response is made


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with open_session() as session:
        session.add_all([Product(id=1, brand="acme", price=30), Product(id=2, brand="acme", price=50)])
        await session.commit()
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)
app.add_middleware(CacheMiddleware, cache=cache)


@app.get("/products/{product_id}", dependencies=[cached(ttl=300, tags=["product:{product_id}"])])
async def read_product(product_id: int, session: Session) -> int:
    return (await session.get_one(Product, product_id)).price


@app.get("/brands/{brand}", dependencies=[cached(ttl=300, tags=["brand:{brand}"])])
async def read_brand(brand: str, session: Session, tags: CacheTags) -> list[int]:
    tags.add(f"reviews:{brand}")
    return list(await session.scalars(select(Product.id).where(Product.brand == brand).order_by(Product.id)))


@app.post("/changes/price")
async def change_price(product_id: int, price: int, session: Session) -> int:
    (await session.get_one(Product, product_id)).price = price
    return price


@app.post("/changes/takeover")
async def take_over(brand: str, by: str, session: Session) -> None:
    await session.execute(update(Product).where(Product.brand == brand).values(brand=by))
