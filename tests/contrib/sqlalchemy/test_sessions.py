"""Whatever sessions are made by can be watched: plain, asynchronous, scoped, and SQLModel's."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, update
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    column_property,
    mapped_column,
    scoped_session,
    sessionmaker,
)
from sqlmodel import Session as ModelSession
from sqlmodel import SQLModel, col
from sqlmodel.ext.asyncio.session import AsyncSession as AsyncModelSession

from fastapi_cacheinval import ConfigurationError, HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import Collector, collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.heroes import Hero, Team
from tests.contrib.sqlalchemy.store import TAGS, Base, Brand, Label, Product, tags_of

pytestmark = pytest.mark.anyio


class Own(DeclarativeBase):
    pass


class Priced(Own):
    """It has an attribute that no column stores."""

    __tablename__ = "priced"
    id: Mapped[int] = mapped_column(primary_key=True)
    price: Mapped[int] = mapped_column()
    double = column_property(price * 2)  # type: ignore[operator]


@pytest.fixture
def engine(engine: Engine) -> Engine:
    SQLModel.metadata.create_all(engine)
    return engine


class OwnSession(Session):
    pass


class OwnAsyncSession(AsyncSession):
    pass


@pytest.mark.parametrize("kind", ["sessionmaker", "class", "instance", "scoped_session"])
def test_plain_sessions_are_watched_and_others_are_not(engine: Engine, cache: HTTPCache, kind: str) -> None:
    """What is named is watched, and nothing else: not the sessions of another factory."""
    maker = sessionmaker(engine, class_=OwnSession)
    scoped = scoped_session(maker)
    session = maker()
    watched: Any = {"sessionmaker": maker, "class": OwnSession, "instance": session, "scoped_session": scoped}[kind]
    collector = collect_changes(watched, cache, TAGS)
    with capture_invalidations(cache) as receipts:
        with Session(engine) as other:
            other.add(Label(id=1))
            other.commit()
        session.add(Label(id=2))
        session.commit()
        session.bulk_insert_mappings(Label, [{"id": 3}])  # type: ignore[arg-type]
        session.commit()
        if kind == "scoped_session":
            scoped.add(Label(id=4))
            scoped.commit()
            scoped.remove()
    session.close()
    collector.stop()
    expected = [{"label:2"}, {"label:3"}] + [{"label:4"}] * (kind == "scoped_session")
    assert tags_of(receipts) == expected


@pytest.mark.parametrize("kind", ["async_sessionmaker", "class", "instance", "async_scoped_session", "own sync class"])
async def test_asynchronous_sessions_are_watched(
    engine: Engine, async_engine: AsyncEngine, cache: HTTPCache, kind: str
) -> None:
    """`await session.commit()` returns when the purge is made; plain sessions beside them are not watched."""
    more: dict[str, Any] = {"sync_session_class": OwnSession} if kind == "own sync class" else {}
    maker = async_sessionmaker(async_engine, class_=OwnAsyncSession, **more)
    scoped = async_scoped_session(maker, scopefunc=lambda: 1)
    early = maker()
    watched: Any = {"class": OwnAsyncSession, "instance": early, "async_scoped_session": scoped}.get(kind, maker)
    collector = collect_changes(watched, cache, TAGS)
    async with cache, early if kind == "instance" else maker() as session:
        with capture_invalidations(cache) as receipts:
            session.add(Label(id=2))
            await session.commit()
            assert tags_of(receipts) == [{"label:2"}]
            await session.execute(update(Label).values(text="x"))
            await session.rollback()
            async with session.begin(), session.begin_nested():
                session.add(Label(id=3))
            assert tags_of(receipts) == [{"label:2"}, {"label:3"}]
            await session.run_sync(lambda sync: sync.bulk_insert_mappings(Label, [{"id": 4}]))
            await session.commit()
            with OwnSession(engine) as plain:
                plain.add(Label(id=9))
                plain.commit()
            assert tags_of(receipts) == [{"label:2"}, {"label:3"}, {"label:4"}]
    await early.close()
    collector.stop()


@pytest.mark.parametrize("by", ["method", "mapping"])
def test_sqlmodel_is_watched(engine: Engine, cache: HTTPCache, by: str) -> None:
    """Its models and its session: a method on the model, templates, relationships, statements."""
    maker = sessionmaker(engine, class_=ModelSession)
    tags: Any = {Hero: ["hero:{id}", "members:{team_id}"]} if by == "mapping" else None
    collector = collect_changes(maker, cache, tags)
    with capture_invalidations(cache) as receipts, maker() as session:
        session.add(Team(id=1, heroes=[Hero(id=5)]))
        session.commit()
        session.exec(update(Hero).where(col(Hero.id) == 5).values(team_id=None))
        session.commit()
    collector.stop()
    first = {"team:1", "hero:5"} | ({"members:1"} if by == "mapping" else set())
    # A hero by itself has tags only where they are mapped.
    assert tags_of(receipts) == [first] + [{"hero:5", "members:1"}] * (by == "mapping")


async def test_sqlmodels_asynchronous_session_is_watched(async_engine: AsyncEngine, cache: HTTPCache) -> None:
    """The method on the model loads what it needs, in SQLAlchemy's greenlet."""
    maker = async_sessionmaker(async_engine, class_=AsyncModelSession)
    collector = collect_changes(maker, cache)
    with capture_invalidations(cache) as receipts:
        async with cache, maker() as session:
            session.add_all([Team(id=1), Hero(id=5, team_id=1)])
            await session.commit()
            team = await session.get(Team, 1)
            assert team is not None
            await session.delete(team)
            await session.commit()
    collector.stop()
    assert tags_of(receipts) == [{"team:1", "hero:5"}, {"team:1", "hero:5"}]


# -- mappings that cannot work -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({Product: ["product:{number}"]}, "Product has no column attribute 'number'; it has id, brand_id"),
        ({Product: ["brand:{brand.id}"]}, "plain parameter names"),
        ({Product: ["brand:{brand}"]}, "no column attribute 'brand'"),
        ({Priced: ["double:{double}"]}, r"Priced.double is an expression.*lambda row"),
        ({Priced: ["double:{text}"]}, "it has id, price. What"),
        ({Product: ["a b"]}, "printable ASCII"),
        ({Product: ["product:{id"]}, "malformed braces"),
        ({Product: []}, "Product has a list of tags"),
        ({Product: None}, "Product has a list of tags"),
        ({Product: [7]}, "A tag is a str"),
        ({Base: ["x"]}, "is no mapped class"),
        ({int: ["x"]}, "is no mapped class"),
        ({"Product": ["x"]}, "is no mapped class"),
        ([Product], "maps classes to tags"),
    ],
)
def test_a_mapping_that_cannot_work_is_refused_at_set_up(engine: Engine, tags: Any, message: str) -> None:
    """By name, before anything is listened to."""
    maker = sessionmaker(engine)
    cache = HTTPCache()
    with pytest.raises(ConfigurationError, match=message):
        collect_changes(maker, cache, tags)
    assert list(maker().dispatch.before_flush) == []
    assert not cache._core.expects_changes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((sessionmaker(), "cache"), "takes the HTTPCache"),
        ((Product, HTTPCache()), "takes a sessionmaker"),
        ((object(), HTTPCache()), "takes a sessionmaker"),
        ((sessionmaker(), HTTPCache(), {"x": 1}), "is no mapped class"),
    ],
)
def test_other_arguments_are_refused_too(arguments: Any, message: str) -> None:
    """What is no factory of sessions, and what is no cache."""
    with pytest.raises(ConfigurationError, match=message):
        collect_changes(*arguments)


def test_wide_tags_and_the_outbox_are_looked_at(engine: Engine) -> None:
    """A wide tag stands for any row, and takes no values; an outbox has a method."""
    maker, cache = sessionmaker(engine), HTTPCache()
    with pytest.raises(ConfigurationError, match="take no values"):
        collect_changes(maker, cache, wide={Brand: ["brand:{id}"]})
    with pytest.raises(ConfigurationError, match="method add"):
        collect_changes(maker, cache, outbox=object())  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="sync_session_class"):
        collect_changes(async_sessionmaker(sync_session_class=lambda **_: Session()), cache)  # type: ignore[arg-type]


def test_it_makes_the_cache_expect_changes(engine: Engine, cache: HTTPCache) -> None:
    """The answers of mutations wait for late commits from then on; what it returns can be stopped."""
    collector = collect_changes(sessionmaker(engine), cache, TAGS)
    assert isinstance(collector, Collector)
    assert cache._core.expects_changes
    collector.stop()
    collector.stop()


def test_a_function_that_gives_text_gives_one_tag(engine: Engine, cache: HTTPCache) -> None:
    """A str is never meant as its letters."""
    maker = sessionmaker(engine)
    collector = collect_changes(maker, cache, {Label: lambda label: f"label:{label.id}"})
    with maker() as session, capture_invalidations(cache) as receipts:
        session.add(Label(id=1))
        session.commit()
    assert [receipt.tags for receipt in receipts] == [("label:1",)]
    collector.stop()
