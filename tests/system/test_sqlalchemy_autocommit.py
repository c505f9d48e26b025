"""Where MariaDB commits each statement by itself, watched sessions miss no linked row, whoever has asked for that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Column, Engine, ForeignKey, String, Table, create_engine, delete, event, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import capture_invalidations
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
    name: Mapped[str] = mapped_column(String(20), default="room")
    works: Mapped[list[Work]] = relationship(secondary=shown, passive_deletes=True)


class Work(Own):
    __tablename__ = "work"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20), default="work")


def by_event(name: str, do: Callable[[Any], object]) -> Callable[[str], Engine]:
    def make(server: str) -> Engine:
        made = create_engine(server)
        event.listen(made, name, lambda connection, *_: do(connection))
        return made

    return make


WAYS: dict[str, Callable[[str], Engine]] = {
    "SQLAlchemy": lambda server: create_engine(server, isolation_level="AUTOCOMMIT"),
    "the driver": lambda server: create_engine(server, connect_args={"autocommit": True}),
    "the server": lambda server: create_engine(server, connect_args={"autocommit": None}),
    "a listener": by_event("connect", lambda connection: connection.autocommit(True)),
    "SQL": by_event("begin", lambda connection: connection.exec_driver_sql("SET autocommit=1")),
}


def unlink(session: Session) -> None:
    room = session.get_one(Room, 1)
    room.works.clear()
    session.flush()


WORK: dict[str, Callable[[Session], object]] = {
    "a delete()": lambda session: session.execute(delete(Work).where(Work.id == 1)),
    "a delete() of a table": lambda session: session.execute(delete(Work.__table__).where(Work.__table__.c.id == 1)),  # type: ignore[arg-type]
    "session.delete()": lambda session: session.delete(session.get_one(Work, 1)),
    "a delete() of links": lambda session: session.execute(delete(shown).where(shown.c.work_id == 1)),
    "an insert() of links": lambda session: session.execute(insert(shown), [{"room_id": 1, "work_id": 2}]),
    "a collection": unlink,
}
TAGS: dict[str, dict[Any, Any]] = {
    "templates": {Room: ["room:{id}", "room:{name}"], Work: ["work:{id}"]},
    "functions": {Room: [lambda room: [f"room:{room.id}", f"room:{room.name}"]], Work: ["work:{id}"]},
}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """One server for all tests here."""
    with mariadb() as url:
        yield url


@pytest.mark.parametrize("kind", TAGS)
@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("way", WAYS)
def test_the_tags_of_linked_rows_are_purged(server: str, way: str, work: str, kind: str) -> None:
    """They take more than keys; no transaction that might have read them before is there to be waited for."""
    plain = create_engine(server)
    Own.metadata.drop_all(plain)
    Own.metadata.create_all(plain)
    with Session(plain) as session:
        first = Work(id=1)
        session.add_all([Room(id=1, works=[first]), Work(id=2)])
        session.commit()
    plain.dispose()
    engine, cache = WAYS[way](server), HTTPCache(enabled=False)
    sessions = sessionmaker(engine)
    collector = collect_changes(sessions, cache, TAGS[kind])
    try:
        with capture_invalidations(cache) as captured, sessions() as session:
            WORK[work](session)
            session.commit()
    finally:
        collector.stop()
        engine.dispose()
    assert {"room:1", "room:room"} <= {tag for one in captured for tag in one.tags}
    assert not any(one.everything for one in captured)
