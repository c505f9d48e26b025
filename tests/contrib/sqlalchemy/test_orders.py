"""A watched session locks rows in the order in which it writes them without a watch: two that do the same never wait for each other in a circle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, ForeignKey, create_engine, event, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, sessionmaker
from sqlalchemy.pool import StaticPool

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.contrib.sqlalchemy.locking import in_savepoint


class Own(DeclarativeBase):
    pass


class Zone(Own):
    """The parent of what comes before it in the alphabet, and of itself."""

    __tablename__ = "zone"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")
    within_id: Mapped[int | None] = mapped_column(ForeignKey("zone.id"))
    areas: Mapped[list[Area]] = relationship(back_populates="zone", cascade="all, delete-orphan")
    within: Mapped[Zone | None] = relationship(remote_side="Zone.id")


class Area(Own):
    __tablename__ = "area"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")
    zone_id: Mapped[int] = mapped_column(ForeignKey("zone.id"))
    zone: Mapped[Zone] = relationship(back_populates="areas")


class Other(Own):
    """Nothing leads to it."""

    __tablename__ = "other"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")


TAGS: dict[Any, Any] = {Zone: ["zone:{name}"], Area: ["area:{name}"], Other: ["other:{name}"]}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path / 'zones.db'}")
    Own.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Zone(id=number) for number in range(1, 1001))
        session.add_all([Area(id=1, zone_id=1), Area(id=2, zone_id=2), Other(id=1)])
        session.commit()
    yield engine
    engine.dispose()


def renamed(session: Session, *kinds: type[Any]) -> None:
    for kind in kinds:
        session.get_one(kind, 1).name = "new"


def deleted(session: Session, *kinds: type[Any]) -> None:
    for kind in kinds:
        if kind is Zone:
            session.delete(session.get_one(Zone, 1))
        else:
            session.get_one(kind, 2 if kind is Area else 1).name = "new"


def moved(session: Session, *kinds: type[Any]) -> None:
    """With a relationship of a class to itself SQLAlchemy plans each row by itself."""
    renamed(session, *kinds)
    session.get_one(Zone, 1).within = session.get_one(Zone, 5)


def _tables(engine: Engine, work: Callable[..., None], kinds: tuple[type[Any], ...]) -> tuple[list[str], list[str]]:
    """The tables whose rows are locked in a flush, and those that are written, each in its order."""
    locked: list[str] = []
    wrote: list[str] = []

    def note(*given: Any) -> None:
        statement = given[1]
        if getattr(statement, "_for_update_arg", None) is not None:
            locked.extend(str(each) for each in statement.get_final_froms())
        elif getattr(statement, "is_update", False) or getattr(statement, "is_delete", False):
            wrote.append(str(statement.table))

    cache, sessions = HTTPCache(), sessionmaker(engine)
    collector = collect_changes(sessions, cache, TAGS)
    with sessions(autoflush=False) as session:
        work(session, *kinds)
        event.listen(engine, "before_execute", note)
        session.flush()
        event.remove(engine, "before_execute", note)
    collector.stop()
    return list(dict.fromkeys(locked)), list(dict.fromkeys(each for each in wrote if each in locked))


@pytest.mark.parametrize("work", [renamed, deleted, moved])
@pytest.mark.parametrize("kinds", [(Zone, Area, Other), (Other, Area, Zone), (Area, Other, Zone)])
def test_a_flush_locks_its_classes_in_the_order_in_which_it_writes_them(
    engine: Engine, work: Callable[..., None], kinds: tuple[type[Any], ...]
) -> None:
    """Whatever the session has loaded first."""
    locked, wrote = _tables(engine, work, kinds)
    assert len(wrote) == 3
    assert locked == wrote


@pytest.mark.parametrize("how", ["flush", "update", "save", "mappings"])
def test_many_rows_are_locked_as_they_are_written(engine: Engine, how: str) -> None:
    """A flush writes by key, a statement with a list in the order of the list, and more rows than one look holds."""
    sessions = sessionmaker(engine, autoflush=False)
    asked: list[list[int]] = []

    def note(*given: Any) -> None:
        statement = given[1]
        if getattr(statement, "_for_update_arg", None) is not None:
            (keys,) = [value for value in statement.compile().params.values() if isinstance(value, list)]
            asked.append(keys)

    collector = collect_changes(sessions, HTTPCache(), TAGS)
    rows = [{"id": number, "name": "new"} for number in range(1000, 0, -1)]
    event.listen(engine, "before_execute", note)
    with sessions.begin() as session:
        if how == "flush":
            for row in rows:
                session.get_one(Zone, row["id"]).name = "new"
        elif how == "update":
            session.execute(update(Zone), rows)
        elif how == "save":
            zones = [session.get_one(Zone, row["id"]) for row in rows]
            session.expunge_all()
            session.bulk_save_objects(zones)
        else:
            session.bulk_update_mappings(Zone.__mapper__, rows)
    event.remove(engine, "before_execute", note)
    collector.stop()
    assert asked
    seen = list(dict.fromkeys(key for keys in asked for key in keys))
    assert seen == [row["id"] for row in rows] if how == "update" else seen == list(range(1, 1001))


def test_the_error_of_a_look_outlives_its_savepoint() -> None:
    """A deadlock ends MariaDB's transaction with its savepoints; here the app's own ROLLBACK stands for it."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.connect() as connection, pytest.raises(OperationalError, match="no such table"):
        _lose_a_savepoint(connection)
    engine.dispose()


def _lose_a_savepoint(connection: Connection) -> None:
    with in_savepoint(connection):
        connection.exec_driver_sql("ROLLBACK")
        connection.exec_driver_sql("SELECT 1 FROM nowhere")
