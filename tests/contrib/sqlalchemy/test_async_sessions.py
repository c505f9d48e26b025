"""Asynchronous sessions are watched by the class or the factory that is named, whatever makes what is behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession as AsyncModelSession

from fastapi_cacheinval import ConfigurationError, HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.store import TAGS, Label, tags_of

pytestmark = pytest.mark.anyio


class OwnSession(Session):
    pass


@pytest.mark.parametrize("order", ["before", "after"])
async def test_a_sync_session_class_of_a_subclass_or_of_one_session_is_watched(
    engine: Engine, async_engine: AsyncEngine, cache: HTTPCache, order: str
) -> None:
    """Whoever is a session of the class that is named is watched, and its own listeners hear first."""

    class Ours(AsyncSession):
        pass

    class Plain(Ours):
        pass

    class Audited(Session):
        pass

    class WithClass(Ours):
        sync_session_class = Audited

    class OfSQLModel(AsyncModelSession, Ours):
        """It sets `sync_session_class` too."""

    class WithMaker(Ours):
        sync_session_class = sessionmaker(class_=OwnSession)  # type: ignore[assignment]

    class WithInit(Ours):
        def __init__(self, bind: Any) -> None:
            super().__init__(bind, sync_session_class=OwnSession)

    factory: Any = sessionmaker(async_engine, class_=Plain)  # type: ignore[call-overload]
    heard: list[str] = []
    event.listen(Audited, "before_flush", lambda *_: heard.append("theirs"))
    if order == "after":
        # Classes that are made later are watched as well.
        collect_changes(Ours, cache, TAGS)
    makers: list[Callable[[], AsyncSession]] = [
        lambda: Ours(async_engine),
        lambda: Plain(async_engine),
        lambda: WithClass(async_engine),
        lambda: WithMaker(async_engine),
        lambda: OfSQLModel(async_engine),
        lambda: WithInit(async_engine),
        lambda: Ours(async_engine, sync_session_class=Audited),
        async_sessionmaker(async_engine, class_=Ours, sync_session_class=OwnSession),
        factory,
    ]
    if order == "before":
        collect_changes(Ours, cache, TAGS)
    event.listen(Audited, "after_flush", lambda *_: heard.append("late"))
    async with cache:
        for number, maker in enumerate(makers):
            async with maker() as session:
                with capture_invalidations(cache) as receipts:
                    session.add(Label(id=number))
                    await session.commit()
            assert tags_of(receipts) == [{f"label:{number}"}]
        with capture_invalidations(cache) as receipts:
            for number, other in enumerate((Session(engine), Audited(engine)), 100):
                with other:
                    other.add(Label(id=number))
                    other.commit()
        assert tags_of(receipts) == []
    assert heard == ["theirs", "late"] * 3


class ByInit(AsyncSession):
    def __init__(self, bind: Any = None, **more: Any) -> None:
        super().__init__(bind, sync_session_class=OwnSession, **more)


class ByKeyword(AsyncSession):
    def __init__(self, bind: Any = None, **more: Any) -> None:
        more["sync_session_class"] = OwnSession
        super().__init__(bind, **more)


class WithoutKeywords(AsyncSession):
    def __init__(self, bind: Any = None, *, autoflush: bool = True, expire_on_commit: bool = True) -> None:
        super().__init__(bind, autoflush=autoflush, expire_on_commit=expire_on_commit)


class ByAnother(ByInit):
    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.ready = True


@pytest.mark.parametrize("named", ["class", "factory", "scoped", "base", "AsyncSession"])
@pytest.mark.parametrize("kind", [ByInit, ByKeyword, WithoutKeywords, ByAnother])
async def test_a_class_with_an_init_of_its_own_is_watched(
    async_engine: AsyncEngine, cache: HTTPCache, kind: Any, named: str
) -> None:
    """Its `__init__` is called as ever, whatever it takes and hands on."""

    class Base(kind):  # type: ignore[misc]
        pass

    class Own(Base):
        pass

    maker = async_sessionmaker(async_engine, class_=Own)
    if named == "class":
        maker = lambda: Own(async_engine)  # type: ignore[assignment,return-value]  # noqa: E731
    elif named == "scoped":
        maker = async_scoped_session(maker, asyncio.current_task)  # type: ignore[assignment]
    targets: dict[str, Any] = {"class": Own, "base": Base, "AsyncSession": AsyncSession}
    collector = collect_changes(targets.get(named, maker), cache, TAGS)
    async with cache, maker() as session:
        with capture_invalidations(cache) as receipts:
            session.add(Label(id=1))
            await session.commit()
    assert tags_of(receipts) == [{"label:1"}]
    collector.stop()


@pytest.mark.parametrize("kind", ["sessionmaker", "scoped_session", "async_sessionmaker", "one session"])
async def test_a_factory_watches_the_sessions_that_it_makes_of_another_class(
    async_engine: AsyncEngine, cache: HTTPCache, kind: str
) -> None:
    """A `sessionmaker` of asynchronous sessions is a factory of them; one call may name a class of its own."""
    if kind in ("sessionmaker", "scoped_session"):
        plain: Any = sessionmaker(async_engine, class_=AsyncSession)  # type: ignore[call-overload]
        watched = plain if kind == "sessionmaker" else scoped_session(plain)
        made = plain()
        collect_changes(watched, cache, TAGS)
        made = plain()
    else:
        maker = async_sessionmaker(async_engine)
        collect_changes(maker, cache, TAGS)
        made = maker(sync_session_class=OwnSession) if kind == "one session" else maker()
    async with cache, made as session, AsyncSession(async_engine) as other:
        with capture_invalidations(cache) as receipts:
            other.add(Label(id=1))
            await other.commit()
            session.add(Label(id=2))
            await session.commit()
    assert tags_of(receipts) == [{"label:2"}]


async def test_a_factory_of_what_is_no_class_is_refused(async_engine: AsyncEngine, cache: HTTPCache) -> None:
    """The error says what to write."""
    maker = async_sessionmaker(async_engine, class_=partial(AsyncSession, autoflush=False))  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match="give it a class"):
        collect_changes(maker, cache, TAGS)


async def test_collecting_twice_and_stopping_leave_one_watch(async_engine: AsyncEngine, cache: HTTPCache) -> None:
    """Each collector hears of the same sessions, and a stopped one no more."""

    class Own(AsyncSession):
        pass

    for _ in range(3):
        collect_changes(Own, cache, TAGS).stop()
    assert not hasattr(AsyncSession.__init__.__wrapped__, "__wrapped__")  # type: ignore[attr-defined]
    collect_changes(Own, cache, TAGS)
    async with cache, Own(async_engine) as session:
        with capture_invalidations(cache) as receipts:
            session.add(Label(id=1))
            await session.commit()
    assert tags_of(receipts) == [{"label:1"}]
    async with cache:
        with pytest.raises(ConfigurationError, match="sync_session_class"):
            Own(async_engine, sync_session_class=lambda **_: Session())  # type: ignore[arg-type]
