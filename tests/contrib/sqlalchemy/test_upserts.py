"""The result of an upsert is what it is without a watch, and its row is known by the key that it has."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import JSON, Computed, create_engine, select, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker
from sqlalchemy.pool import StaticPool

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import UnknownRows, collect_changes
from fastapi_cacheinval.testing import capture_invalidations


class Base(DeclarativeBase):
    pass


class Article(Base):
    """Its number comes from the database."""

    __tablename__ = "article"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]


class Document(Base):
    """Its key is made by the app."""

    __tablename__ = "document"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    code: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]


class Part(Base):
    """A part of its key comes from the database."""

    __tablename__ = "part"
    shop: Mapped[int] = mapped_column(primary_key=True, server_default="7")
    number: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]


class Offer(Base):
    """Columns that the database works out, one of them from another."""

    __tablename__ = "offer"
    id: Mapped[int] = mapped_column(primary_key=True)
    price: Mapped[int] = mapped_column(default=0)
    price_note: Mapped[str] = mapped_column(default="")
    data: Mapped[Any] = mapped_column(JSON, default=dict)
    double: Mapped[int] = mapped_column(Computed("Price * 2"))
    shown: Mapped[int] = mapped_column(Computed('"double" + 1'))


TAGS = {Article: ["article:{id}"], Document: ["document:{id}"], Part: ["part:{number}"]}
FACE = (
    "inserted_primary_key",
    "inserted_primary_key_rows",
    "returned_defaults",
    "returned_defaults_rows",
    "rowcount",
    "lastrowid",
    "returns_rows",
    "is_insert",
)


def upsert(model: Any, code: str, *, nothing: bool = False, **values: Any) -> Any:
    statement = insert(model).values(code=code, name="new", **values)
    if nothing:
        return statement.on_conflict_do_nothing()
    return statement.on_conflict_do_update(index_elements=["code"], set_={"name": statement.excluded.name})


def face(result: Any) -> dict[str, Any]:
    """What an app sees of a result."""
    seen: dict[str, Any] = {"type": type(result).__name__}
    for name in FACE:
        try:
            value = getattr(result, name)
        except Exception as error:  # noqa: BLE001
            value = type(error).__name__
        seen[name] = [tuple(row) for row in value] if isinstance(value, list) else value
    try:
        seen["rows"] = list(result)
    except Exception as error:  # noqa: BLE001
        seen["rows"] = type(error).__name__
    return seen


STATEMENTS: dict[str, Callable[[Any], Any]] = {
    "a row that is there": lambda model: upsert(model, "a"),
    "a new row": lambda model: upsert(model, "c"),
    "a new row, ignored if there": lambda model: upsert(model, "c", nothing=True),
    "a row that is there, ignored": lambda model: upsert(model, "a", nothing=True),
    "a key that the row does not get": lambda model: upsert(model, "a", id=99),
    "a key that the row gets": lambda model: upsert(model, "c", id=98),
    "several": lambda model: (
        insert(model).values([{"code": "a", "name": "x"}, {"code": "c", "name": "x"}]).on_conflict_do_nothing()
    ),
}
EXPECTED = {
    "a row that is there": {"article:1"},
    "a new row": {"article:3"},
    "a new row, ignored if there": {"article:3"},
    "a row that is there, ignored": set[str](),
    "a key that the row does not get": {"article:1"},
    "a key that the row gets": {"article:98"},
    "several": {"article:3"},
}


def _prepared() -> Any:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Article(id=1, code="a", name="a"), Article(id=2, code="b", name="b")])
        session.add_all([Document(id=uuid.UUID(int=1), code="a", name="a"), Part(number=1, code="a", name="a")])
        session.commit()
    return engine


@pytest.mark.parametrize("target", [Article, Article.__table__])
@pytest.mark.parametrize("kind", STATEMENTS)
def test_an_upsert_gives_the_key_that_it_gives_without_a_watch(kind: str, target: Any) -> None:
    """The key, the number of rows and the defaults: on SQLite those of the last row that was inserted."""
    seen: list[Any] = []
    for watched in (True, False):
        engine, cache = _prepared(), HTTPCache()
        sessions = sessionmaker(engine)
        collector = collect_changes(sessions, cache, TAGS)
        if not watched:
            collector.stop()
        with capture_invalidations(cache) as receipts, sessions() as session:
            result = session.execute(STATEMENTS[kind](target))
            seen.append((face(result), session.execute(select(Article.id, Article.name)).all()))
            session.commit()
        if watched:
            collector.stop()
            assert {tag for receipt in receipts for tag in receipt.tags} == EXPECTED[kind]
            assert not any(receipt.everything for receipt in receipts)
        engine.dispose()
    assert seen[0] == seen[1]


@pytest.mark.parametrize("kind", STATEMENTS)
@pytest.mark.anyio
async def test_an_upsert_of_an_asynchronous_session_gives_the_same_key(tmp_path: Path, kind: str) -> None:
    """Its driver does not say the last number of an INSERT that returns rows."""
    seen: list[Any] = []
    for watched in (True, False):
        engine, cache = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / str(watched)}"), HTTPCache()
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        sessions = async_sessionmaker(engine)
        async with sessions.begin() as session:
            session.add_all([Article(id=1, code="a", name="a"), Article(id=2, code="b", name="b")])
        collector = collect_changes(sessions, cache, TAGS)
        if not watched:
            collector.stop()
        async with sessions() as session:
            seen.append(face(await session.execute(STATEMENTS[kind](Article))))
            await session.rollback()
        collector.stop()
        await engine.dispose()
    assert seen[0] == seen[1]


def test_an_upsert_with_a_key_of_the_app_purges_the_row_that_was_there() -> None:
    """The row keeps its own key, and the result says the one that was given."""
    engine, cache = _prepared(), HTTPCache()
    sessions = sessionmaker(engine)
    collector = collect_changes(sessions, cache, TAGS)
    given = uuid.UUID(int=9)
    with capture_invalidations(cache) as receipts, sessions.begin() as session:
        result: Any = session.execute(upsert(Document, "a", id=given))
        assert result.inserted_primary_key == (given,)
    collector.stop()
    engine.dispose()
    assert receipts[0].tags == (f"document:{uuid.UUID(int=1)}",)


def test_an_upsert_that_is_given_a_part_of_its_key_is_refused_before_it_is_run() -> None:
    """SQLAlchemy asks for the other part alone, and more would show in the result."""
    engine, cache = _prepared(), HTTPCache()
    sessions = sessionmaker(engine)
    collector = collect_changes(sessions, cache, TAGS)
    with sessions() as session:
        with pytest.raises(UnknownRows, match="a part of its primary key"):
            session.execute(upsert(Part, "a", number=5))
        assert session.scalars(select(Part.name)).all() == ["a"]
    collector.stop()
    engine.dispose()


OFFERS = {Offer: ["offer:{id}", "shown:{shown}"]}
APART = {"data": {"new": 1}, "price_note": "x"}


@pytest.mark.parametrize("names", [["data"], ["price_note"], ["data", "price_note"]])
def test_an_upsert_beside_what_a_computed_column_takes_is_run(tmp_path: Path, names: list[str]) -> None:
    """The tag of the computed column stays, and is known from the row."""
    engine = create_engine(f"sqlite:///{tmp_path / 'offers.db'}")
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.add(Offer(id=1, price=3))
    sessions, cache = sessionmaker(engine), HTTPCache()
    collector = collect_changes(sessions, cache, OFFERS)
    chosen = {name: APART[name] for name in names}
    statement = insert(Offer).values(id=1, **chosen).on_conflict_do_update(["id"], set_=chosen)
    with capture_invalidations(cache) as receipts, sessions.begin() as session:
        session.execute(statement)
    assert [set(receipt.tags) for receipt in receipts] == [{"offer:1", "shown:7"}]
    moved = insert(Offer).values(id=1, price=4).on_conflict_do_update(["id"], set_={"price": 4})
    with pytest.raises(UnknownRows), sessions.begin() as session:
        session.execute(moved)
    with capture_invalidations(cache) as receipts, sessions.begin() as session:
        session.execute(update(Offer).values(price=5))
    assert [set(receipt.tags) for receipt in receipts] == [{"offer:1", "shown:7", "shown:11"}]
    collector.stop()
    engine.dispose()
