"""What the database deletes or changes by itself is found, through whatever tables it comes, and no other delete breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Engine, ForeignKey, Integer, Table, delete, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.store import obedient, tags_of


class Own(DeclarativeBase):
    pass


class Other(DeclarativeBase):
    """Another base over the same tables."""

    metadata = Own.metadata


class Animal(Own):
    __tablename__ = "animal"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(default="animal")
    mother: Mapped[int | None] = mapped_column(ForeignKey("animal.id", ondelete="SET NULL"))
    owner: Mapped[int | None] = mapped_column(ForeignKey("animal.id", ondelete="CASCADE"))
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012


class Cat(Animal):
    """Its second row goes with its first."""

    __tablename__ = "cat"
    id: Mapped[int] = mapped_column(ForeignKey("animal.id", ondelete="CASCADE"), primary_key=True)
    lives: Mapped[int] = mapped_column(default=9)
    __mapper_args__ = {"polymorphic_identity": "cat"}  # noqa: RUF012


class Kitten(Cat):
    """It has three rows."""

    __tablename__ = "kitten"
    id: Mapped[int] = mapped_column(ForeignKey("cat.id", ondelete="CASCADE"), primary_key=True)
    __mapper_args__ = {"polymorphic_identity": "kitten"}  # noqa: RUF012


class Toy(Other):
    """It goes with its cat."""

    __tablename__ = "toy"
    id: Mapped[int] = mapped_column(primary_key=True)
    cat_id: Mapped[int] = mapped_column(ForeignKey("cat.id", ondelete="CASCADE"))


class Shop(Own):
    __tablename__ = "shop"
    id: Mapped[int] = mapped_column(primary_key=True)


offer = Table(
    "offer",
    Own.metadata,
    Column("id", Integer, primary_key=True),
    Column("shop", ForeignKey("shop.id", ondelete="CASCADE")),
    Column("after", ForeignKey("offer.id", ondelete="CASCADE")),
)


class Price(Own):
    __tablename__ = "price"
    id: Mapped[int] = mapped_column(primary_key=True)
    offer: Mapped[int] = mapped_column(ForeignKey("offer.id", ondelete="CASCADE"))


class Season(Own):
    __tablename__ = "season"
    id: Mapped[int] = mapped_column(primary_key=True)


worn = Table(
    "worn",
    Own.metadata,
    Column("hat_id", ForeignKey("hat.id"), primary_key=True),
    Column("head_id", ForeignKey("head.id"), primary_key=True),
    Column("season_id", ForeignKey("season.id", ondelete="CASCADE")),
)


class Hat(Own):
    __tablename__ = "hat"
    id: Mapped[int] = mapped_column(primary_key=True)


class Head(Own):
    __tablename__ = "head"
    id: Mapped[int] = mapped_column(primary_key=True)
    hats: Mapped[list[Hat]] = relationship(secondary=worn)


class Nest(Own):
    """One foreign key unlinks it from its season, and the other has it go."""

    __tablename__ = "nest"
    id: Mapped[int] = mapped_column(primary_key=True)
    begun: Mapped[int | None] = mapped_column(ForeignKey("season.id", ondelete="SET NULL"))
    used: Mapped[int] = mapped_column(ForeignKey("season.id", ondelete="CASCADE"))


class Egg(Own):
    __tablename__ = "egg"
    id: Mapped[int] = mapped_column(primary_key=True)
    nest: Mapped[int] = mapped_column(ForeignKey("nest.id", ondelete="CASCADE"))


class Far(Own):
    """Its foreign key leads to a table that is not declared in this process."""

    __tablename__ = "far"
    id: Mapped[int] = mapped_column(primary_key=True)
    elsewhere: Mapped[int | None] = mapped_column(ForeignKey("nowhere.id", ondelete="CASCADE"))


TAGS: dict[Any, Any] = {
    Animal: ["animal:{id}"],
    Cat: ["lives:{lives}"],
    Toy: ["toy:{id}"],
    Shop: ["shop:{id}"],
    Price: ["price:{id}"],
    Season: ["season:{id}"],
    Hat: ["hat:{id}"],
    Head: ["head:{id}"],
    Nest: ["nest:{id}"],
    Egg: ["egg:{id}"],
    Far: ["far:{id}"],
}
Work = Callable[[Session], Any]


@pytest.fixture
def zoo(tmp_path: Path) -> Iterator[Engine]:
    engine = obedient(tmp_path / "zoo.db")
    here = [table for table in Own.metadata.tables.values() if table.name != "far"]
    Own.metadata.create_all(engine, here)
    with Session(engine) as session:
        session.add_all([Cat(id=1, lives=7), Animal(id=2), Kitten(id=3, lives=5), Cat(id=4, lives=1)])
        session.add_all([Shop(id=1), Season(id=1), Season(id=2), Hat(id=1), Head(id=1), Hat(id=2)])
        session.flush()
        session.add_all([Animal(id=5, mother=1), Cat(id=6, lives=3, owner=2), Animal(id=7, owner=6)])
        session.add_all([Toy(id=1, cat_id=4), Toy(id=2, cat_id=6)])
        session.execute(insert(offer), [{"id": 1, "shop": 1, "after": None}, {"id": 2, "shop": None, "after": 1}])
        session.execute(insert(worn).values(hat_id=1, head_id=1, season_id=1))
        session.flush()
        session.add(Nest(id=1, begun=2, used=2))
        session.flush()
        session.add(Egg(id=1, nest=1))
        session.add_all([Price(id=1, offer=1), Price(id=2, offer=2)])
        session.commit()
    yield engine
    engine.dispose()


def purged_by(engine: Engine, work: Work) -> set[str]:
    """The tags that a transaction purges."""
    cache, sessions = HTTPCache(), sessionmaker(engine)
    collector = collect_changes(sessions, cache, TAGS)
    try:
        with capture_invalidations(cache) as receipts, sessions.begin() as session:
            work(session)
    finally:
        collector.stop()
    assert not any(receipt.everything for receipt in receipts)
    return set().union(*tags_of(receipts))


def _deletes(cls: Any, key: int) -> dict[str, Work]:
    return {
        "flush": lambda s: s.delete(s.get(cls, key)),
        "statement": lambda s: s.execute(delete(cls).where(cls.id == key)),
        "query": lambda s: s.query(cls).filter_by(id=key).delete(),
        "table": lambda s: s.execute(delete(cls.__table__).where(cls.__table__.c.id == key)),
    }


DELETES: dict[str, tuple[Any, int, set[str]]] = {
    "a row in two tables that the database takes together": (Animal, 4, {"animal:4", "lives:1", "toy:1"}),
    "a row in three tables": (Animal, 3, {"animal:3", "lives:5"}),
    "a row that another of its hierarchy points to": (Animal, 1, {"animal:1", "lives:7", "animal:5"}),
    "a row whose rows of its hierarchy go, and theirs": (
        Animal,
        2,
        {"animal:2", "animal:6", "lives:3", "animal:7", "toy:2"},
    ),
    "a row with tables of no class in between": (Shop, 1, {"shop:1", "price:1", "price:2"}),
    "a row that takes association rows of others along": (Season, 1, {"season:1", "hat:1", "head:1"}),
    "a row from which another is unlinked and with which it goes": (Season, 2, {"season:2", "nest:1", "egg:1"}),
}


@pytest.mark.parametrize("how", ["flush", "statement", "query", "table"])
@pytest.mark.parametrize("kind", list(DELETES))
def test_a_delete_purges_what_goes_or_changes_along(zoo: Engine, kind: str, how: str) -> None:
    """By whichever way the row itself is deleted."""
    cls, key, expected = DELETES[kind]
    assert purged_by(zoo, _deletes(cls, key)[how]) == expected


@pytest.mark.parametrize("how", ["flush", "statement"])
def test_a_subclass_is_deleted_as_its_base_is(zoo: Engine, how: str) -> None:
    """SQLAlchemy deletes the rows of both tables, or that of the second."""
    assert purged_by(zoo, _deletes(Cat, 4)[how]) == {"animal:4", "lives:1", "toy:1"}
