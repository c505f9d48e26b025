"""A concrete subclass has a table of its own: its rows are no rows of its base, whatever their keys are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, delete, event, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes


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
