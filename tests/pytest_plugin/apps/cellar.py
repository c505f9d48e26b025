"""An app with plain functions and sessions in threads, behind a layer that the cache does not know."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from sqlalchemy import StaticPool, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes


class Base(DeclarativeBase):
    pass


class Bottle(Base):
    __tablename__ = "bottles"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


cache = HTTPCache()
engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
sessions = sessionmaker(engine)
collect_changes(sessions, cache, {Bottle: ["bottle:{id}"]})


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with sessions() as session:
        session.add_all([Bottle(id=1, name="port"), Bottle(id=2, name="sherry")])
        session.commit()
    yield
    engine.dispose()


app = FastAPI(lifespan=lifespan)


@app.middleware("http")
async def label(request: Request, go_on):
    answer = await go_on(request)
    answer.headers["x-cellar"] = "mine"
    return answer


app.add_middleware(CacheMiddleware, cache=cache)


def open_session() -> Iterator[Session]:
    with sessions() as session:
        yield session
        session.commit()


Opened = Annotated[Session, Depends(open_session, scope="function")]


@app.get("/bottles/{bottle_id}", dependencies=[cached(ttl=60, tags=["bottle:{bottle_id}"])])
def read_bottle(bottle_id: int, session: Opened) -> str:
    return session.get_one(Bottle, bottle_id).name


@app.get("/next/{bottle_id}", dependencies=[cached(ttl=60, tags=["bottle:{bottle_id}"])])
def read_next(bottle_id: int, session: Opened) -> str:
    return session.get_one(Bottle, bottle_id + 1).name


@app.put("/rename/{bottle_id}")
def rename(bottle_id: int, name: str, session: Opened) -> None:
    session.get_one(Bottle, bottle_id).name = name
