"""A concrete subclass has a table of its own: its rows are no rows of its base, whatever their keys are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Column, Engine, ForeignKey, Table, create_engine, delete, event, func, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from tests.contrib.sqlalchemy.watched import watched


class Own(DeclarativeBase):
    pass


class Animal(Own):
    __tablename__ = "animal"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="old")


class Dog(Animal):
    __tablename__ = "dog"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="old")
    __mapper_args__ = {"concrete": True}  # noqa: RUF012


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = create_engine("sqlite://")
    Own.metadata.create_all(made)
    with Session(made) as session:
        session.add_all([Animal(id=1), Dog(id=1)])
        session.commit()
    yield made
    made.dispose()


WORK: dict[str, Callable[[Session], object]] = {
    "a changed row": lambda session: setattr(session.get_one(Animal, 1), "name", "new"),
    "a deleted row": lambda session: session.delete(session.get_one(Animal, 1)),
    "an update()": lambda session: session.execute(update(Animal).where(Animal.name == "old").values(name="new")),
    "a delete()": lambda session: session.execute(delete(Animal).where(Animal.name == "old")),
}


def by_name(row: Any) -> list[str]:
    return [row.name]


TAGS: dict[str, dict[Any, Any]] = {
    "keys": {Animal: ["animal:{id}"], Dog: ["dog:{id}"]},
    "columns": {Animal: ["animal:{name}"], Dog: ["dog:{name}"]},
    "functions": {Dog: [by_name]},
}


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("kind", TAGS)
def test_the_rows_of_a_concrete_subclass_are_left_alone(engine: Engine, kind: str, work: str) -> None:
    """A look at them would lock rows that the app does not write; PostgreSQL refuses it for another table's sake."""
    told: list[str] = []

    def heard(_: Any, __: Any, statement: str, *___: object) -> None:
        told.append(statement)

    sessions = sessionmaker(engine)
    collector = collect_changes(sessions, HTTPCache(enabled=False), TAGS[kind])
    event.listen(engine, "before_cursor_execute", heard)
    try:
        with sessions() as session:
            WORK[work](session)
            session.commit()
    finally:
        collector.stop()
    assert told
    assert [one for one in told if "dog" in one] == []


class Tag(Own):
    __tablename__ = "tag"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="old")


hung = Table(
    "hung",
    Own.metadata,
    Column("cat_id", ForeignKey("cat.id"), primary_key=True),
    Column("tag_id", ForeignKey("tag.id"), primary_key=True),
)


class Cat(Own):
    __tablename__ = "cat"
    id: Mapped[int] = mapped_column(primary_key=True)
    tags: Mapped[list[Tag]] = relationship(secondary=hung)


class Lion(Cat):
    """SQLAlchemy inherits no relationship to it."""

    __tablename__ = "lion"
    id: Mapped[int] = mapped_column(primary_key=True)
    tags: Mapped[list[Tag]] = relationship(viewonly=True, primaryjoin="Lion.id == Tag.id", foreign_keys=[Tag.id])
    __mapper_args__ = {"concrete": True}  # noqa: RUF012


GONE: dict[str, Callable[[Session], object]] = {
    "an object": lambda session: session.delete(session.get_one(Lion, 1)),
    "a delete()": lambda session: session.execute(delete(Lion)),
}


@pytest.mark.parametrize("work", GONE)
def test_what_the_base_is_linked_to_is_left_alone(engine: Engine, work: str) -> None:
    """A row of the subclass takes no link of the base's row with the same key along."""
    sessions = sessionmaker(engine)
    with sessions.begin() as session:
        session.add_all([Cat(id=1, tags=[Tag(id=5)]), Lion(id=1)])
    with watched(engine, {Tag: ["tag:{name}"], Cat: ["cat:{id}"], Lion: ["lion:{id}"]}) as (session, captured):
        GONE[work](session)
        session.commit()
    assert {tag for one in captured for tag in one.tags} == {"cat:1", "lion:1"}


WIDE: dict[str, Callable[[Session], object]] = {
    "one of the base": lambda session: session.execute(update(Animal).where(func.random() != 0).values(name="new")),
    "one of the subclass": lambda session: session.execute(update(Dog).where(func.random() != 0).values(name="new")),
    "an object": lambda session: setattr(session.get_one(Dog, 1), "name", "new"),
}


@pytest.mark.parametrize("work", WIDE)
def test_a_change_of_either_purges_the_wide_tag_of_the_base(engine: Engine, work: str) -> None:
    """Who reads the base by a union reads the rows of both; the subclass has its base's tags."""
    with watched(engine, wide={Animal: ["animals"], Dog: ["dogs"]}) as (session, captured):
        WIDE[work](session)
        session.commit()
    tags = {tag for one in captured for tag in one.tags}
    assert "animals" in tags
    assert "dogs" in tags or work == "one of the base"
