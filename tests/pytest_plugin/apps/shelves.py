"""An app over SQLAlchemy: some routes name the rows that they show, some do not; one mutation goes past the session."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI
from sqlalchemy import StaticPool, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastapi_cacheinval import CacheMiddleware, CacheTags, HTTPCache, cached
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes


class Base(DeclarativeBase):
    pass


class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    note: Mapped[str] = mapped_column(default="")


class Shelf(Base):
    __tablename__ = "shelves"
    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str]


cache = HTTPCache()
engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
sessions = async_sessionmaker(engine)
collect_changes(sessions, cache, {Book: ["book:{id}", "books"]})


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    async with sessions() as session:
        session.add_all([Book(id=1, title="Emma"), Book(id=2, title="Ulysses"), Shelf(id=1, label="novels")])
        await session.commit()
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)
app.add_middleware(CacheMiddleware, cache=cache)


async def open_session() -> AsyncIterator[AsyncSession]:
    async with sessions() as session:
        yield session
        await session.commit()


Opened = Annotated[AsyncSession, Depends(open_session, scope="function")]


async def first_book(session: Opened) -> None:
    (await session.get_one(Book, 1)).title  # noqa: B018


@app.get("/books", dependencies=[cached(ttl=60, tags=["books"])])
async def list_books(session: Opened) -> list[str]:
    return [book.title for book in await session.scalars(select(Book))]


@app.get("/books/{book_id}", dependencies=[cached(ttl=60, tags=["book:{book_id}"])])
async def read_book(book_id: int, session: Opened) -> str:
    return (await session.get_one(Book, book_id)).title


@app.get("/next/{book_id}", dependencies=[cached(ttl=60, tags=["book:{book_id}"])])
async def read_next(book_id: int, session: Opened) -> str:
    return (await session.get_one(Book, book_id + 1)).title


@app.get("/named/{book_id}", dependencies=[cached(ttl=60)])
async def read_named(book_id: int, session: Opened, tags: CacheTags) -> str:
    tags.add(f"book:{book_id}")
    return (await session.get_one(Book, book_id)).title


@app.get("/guarded", dependencies=[cached(ttl=60, guarded_by=first_book)])
async def read_guarded() -> str:
    return "open"


@app.get("/shelves/{shelf_id}", dependencies=[cached(ttl=60, tags=["shelf:{shelf_id}"])])
async def read_shelf(shelf_id: int, session: Opened) -> str:
    return (await session.get_one(Shelf, shelf_id)).label


@app.put("/retitle/{book_id}")
async def retitle(book_id: int, title: str, session: Opened) -> None:
    (await session.get_one(Book, book_id)).title = title


@app.put("/annotate/{book_id}")
async def annotate(book_id: int, note: str, session: Opened) -> None:
    (await session.get_one(Book, book_id)).note = note


@app.put("/relabel/{shelf_id}")
async def relabel(shelf_id: int, label: str, session: Opened) -> None:
    (await session.get_one(Shelf, shelf_id)).label = label


@app.put("/relabel-all")
async def relabel_all(label: str, session: Opened) -> None:
    await session.execute(update(Shelf).values(label=label))


@app.put("/forget/{shelf_id}")
async def forget(shelf_id: int, session: Opened) -> None:
    (await session.get_one(Shelf, shelf_id)).label = "forgotten"
    await session.flush()
    await session.rollback()
