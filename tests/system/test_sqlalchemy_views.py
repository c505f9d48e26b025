"""On MariaDB a transaction's first plain query makes its view of all rows; a write makes none, and a watched one neither."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Column, Engine, ForeignKey, String, Table, create_engine, delete, insert, select, update
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    make_transient_to_detached,
    mapped_column,
    relationship,
)

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from tests.system.mariadb import mariadb


class Own(DeclarativeBase):
    pass


shown = Table(
    "shown",
    Own.metadata,
    Column("room_id", ForeignKey("room.id", ondelete="CASCADE"), primary_key=True),
    Column("work_id", ForeignKey("work.id", ondelete="CASCADE"), primary_key=True),
)


class Room(Own):
    __tablename__ = "room"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20), default="old")
    works: Mapped[list[Work]] = relationship(secondary=shown, passive_deletes=True)
    lamps: Mapped[list[Lamp]] = relationship(passive_deletes="all")


class Work(Own):
    __tablename__ = "work"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20), default="old")
    kind: Mapped[str] = mapped_column(String(20))
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "work"}  # noqa: RUF012


class Statue(Work):
    """A part of it stands in a table of its own."""

    __tablename__ = "statue"
    id: Mapped[int] = mapped_column(ForeignKey("work.id"), primary_key=True)
    height: Mapped[int] = mapped_column(default=0)
    __mapper_args__ = {"polymorphic_identity": "statue"}  # noqa: RUF012


class Lamp(Own):
    """It goes with its room."""

    __tablename__ = "lamp"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20), default="old")
    room_id: Mapped[int] = mapped_column(ForeignKey("room.id", ondelete="CASCADE"))


class Other(Own):
    """A row that another transaction changes in the meantime."""

    __tablename__ = "other"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20), default="old")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """One server for all tests here."""
    with mariadb() as url:
        yield url


@pytest.fixture
def engine(server: str) -> Iterator[Engine]:
    made = create_engine(server)
    Own.metadata.drop_all(made)
    Own.metadata.create_all(made)
    with Session(made) as session:
        statue = Statue(id=1)
        session.add_all([Room(id=1, works=[statue], lamps=[Lamp(id=1)]), Statue(id=2), Other(id=1)])
        session.commit()
    yield made
    made.dispose()


def there(session: Session, row: Any) -> Any:
    """An object of a row that is there, which nothing is read for."""
    make_transient_to_detached(row)
    session.add(row)
    return row


def set_name(*rows: Any) -> None:
    for row in rows:
        row.name = "new"


CLASSES: list[Any] = [Room, Work, Lamp]
TAGS: dict[str, dict[Any, Any]] = {
    "keys": {cls: [cls.__tablename__ + ":{id}"] for cls in CLASSES},
    "columns": {cls: [cls.__tablename__ + ":{id}", cls.__tablename__ + ":{name}"] for cls in CLASSES},
    "functions": {
        Room: [lambda room: [f"room:{room.name}", *(f"work:{work.name}" for work in room.works)]],
        Work: [lambda work: [f"work:{work.name}"]],
        Lamp: [lambda lamp: [f"lamp:{lamp.name}"]],
    },
}
WORK: dict[str, Callable[[Session], object]] = {
    "a new row": lambda session: session.add(Room(id=9)),
    "a row that is known": lambda session: set_name(there(session, Room(id=1))),
    "a locked row": lambda session: set_name(session.get_one(Room, 1, with_for_update=True)),
    "rows of two classes": lambda session: set_name(there(session, Room(id=1)), there(session, Lamp(id=1))),
    "a row that goes": lambda session: session.delete(there(session, Room(id=1))),
    "a link": lambda session: session.add(Room(id=9, works=[there(session, Statue(id=2))])),
    "an update()": lambda session: session.execute(update(Room).where(Room.id == 1).values(name="new")),
    "an update() of a part": lambda session: session.execute(update(Work).where(Work.id == 1).values(name="new")),
    "a list": lambda session: session.execute(update(Room), [{"id": 1, "name": "new"}]),
    "mappings": lambda session: session.bulk_update_mappings(Room.__mapper__, [{"id": 1, "name": "new"}]),
    "a delete()": lambda session: session.execute(delete(Room).where(Room.id == 1)),
    "an insert()": lambda session: session.execute(insert(Room), [{"id": 8}, {"id": 9}]),
    "an insert of links": lambda session: session.execute(insert(shown).values(room_id=1, work_id=2)),
    "links": lambda session: session.execute(delete(shown)),
}


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("kind", ["nothing", *TAGS])
def test_a_watched_write_leaves_the_view_to_the_app(engine: Engine, kind: str, work: str) -> None:
    """What the app reads after its write is as new as it is without a watch."""
    sessions = type("Own", (Session,), {})
    collector = collect_changes(sessions, HTTPCache(enabled=False), TAGS[kind]) if kind in TAGS else None
    try:
        with sessions(engine) as session:
            WORK[work](session)
            session.flush()
            with engine.begin() as other:
                other.execute(update(Other).values(name="new"))
            assert session.scalar(select(Other.name)) == "new"
    finally:
        if collector is not None:
            collector.stop()
