"""A class that loads its subclasses inline: its statements write its own table, as without a watch, and only that is locked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ForeignKey, create_engine, delete, insert, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.contrib.sqlalchemy.locking import locked
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.store import tags_of


class Own(DeclarativeBase):
    pass


class Staff(Own):
    """It names every subclass at once."""

    __tablename__ = "staff"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(default="staff")
    team: Mapped[int] = mapped_column(default=1)
    __mapper_args__ = {  # noqa: RUF012
        "polymorphic_on": "kind",
        "polymorphic_identity": "staff",
        "with_polymorphic": "*",
    }


class Chief(Staff):
    __tablename__ = "chief"
    id: Mapped[int] = mapped_column(ForeignKey("staff.id"), primary_key=True)
    car: Mapped[str] = mapped_column(default="")
    __mapper_args__ = {"polymorphic_identity": "chief"}  # noqa: RUF012


class Crew(Own):
    """Its subclass asks for it."""

    __tablename__ = "crew"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(default="crew")
    team: Mapped[int] = mapped_column(default=1)
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "crew"}  # noqa: RUF012


class Mate(Crew):
    __tablename__ = "mate"
    id: Mapped[int] = mapped_column(ForeignKey("crew.id"), primary_key=True)
    ship: Mapped[str] = mapped_column(default="")
    __mapper_args__ = {"polymorphic_identity": "mate", "polymorphic_load": "inline"}  # noqa: RUF012


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[sessionmaker[Session]]:
    engine = create_engine(f"sqlite:///{tmp_path / 'staff.db'}")
    Own.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Staff(id=1), Chief(id=2), Crew(id=1), Mate(id=2)])
        session.commit()
    yield sessionmaker(engine)
    engine.dispose()


@pytest.mark.parametrize("kind", ["update", "delete", "flush"])
@pytest.mark.parametrize("cls", [Staff, Crew])
def test_its_rows_are_found(sessions: sessionmaker[Session], cls: Any, kind: str) -> None:
    """A plain statement on it is a statement on one table."""
    cache = HTTPCache()
    collector = collect_changes(sessions, cache, {cls: ["row:{id}", "team:{team}"]})
    with capture_invalidations(cache) as receipts, sessions.begin() as session:
        match kind:
            case "update":
                session.execute(update(cls).where(cls.id == 1).values(team=2))
            case "delete":
                session.execute(delete(cls).where(cls.id == 1))
            case _:
                session.get_one(cls, 1).team = 2
    collector.stop()
    expected = {"row:1", "team:1"} | ({"team:2"} if kind != "delete" else set())
    assert tags_of(receipts) == [expected]


INSERTS: dict[str, tuple[Callable[[Any], Any], list[dict[str, Any]], set[str]]] = {
    "insert": (insert, [{"team": 5}, {"team": 6}], {"row:3", "row:4", "team:5", "team:6"}),
    "insert of different values": (insert, [{"team": 5}, {"team": 6}, {}, {}], {"row:3", "row:4", "row:5", "row:6", "team:1", "team:5", "team:6"}),
    "insert with its keys": (insert, [{"id": 8, "team": 5}, {"id": 9, "team": 5}], {"row:8", "row:9", "team:5"}),
    "insert with a common value": (lambda cls: insert(cls).values(kind=cls.__tablename__), [{"team": 5}, {"team": 6}], {"row:3", "row:4", "team:5", "team:6"}),
    "insert or ignore": (lambda cls: insert(cls).prefix_with("OR IGNORE"), [{"id": 1, "team": 5}, {"id": 8, "team": 5}], {"row:1", "row:8", "team:1", "team:5"}),
    "upsert of other rows": (lambda cls: upsert(cls).on_conflict_do_nothing(), [{"id": 1, "team": 5}, {"id": 8, "team": 5}], {"row:8", "team:5"}),
    "upsert": (lambda cls: upsert(cls).on_conflict_do_nothing(), [{"team": 5}, {"team": 6}], {"row:3", "row:4", "team:5", "team:6"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", INSERTS)
@pytest.mark.parametrize("cls", [Staff, Crew])
def test_its_new_rows_are_found(sessions: sessionmaker[Session], cls: Any, kind: str) -> None:
    """SQLAlchemy compiles no `RETURNING` for the join, and the list is written all the same."""
    made, given, expected = INSERTS[kind]
    with Session(sessions.kw["bind"]) as alone:
        alone.execute(made(cls), given)
        rows = alone.execute(select(cls.__table__)).all()
    cache = HTTPCache()
    collector = collect_changes(sessions, cache, {cls: ["row:{id}", "team:{team}"]})
    with capture_invalidations(cache) as receipts, sessions.begin() as session:
        session.execute(made(cls), given)
        assert session.execute(select(cls.__table__)).all() == rows
    collector.stop()
    assert tags_of(receipts) == [expected]


@pytest.mark.parametrize("cls", [Staff, Crew])
def test_only_its_own_table_islocked(cls: Any) -> None:
    """PostgreSQL refuses to lock the other side of an outer join."""
    query = str(locked(select(cls.id), cls.__mapper__).compile(dialect=postgresql.dialect()))
    assert query.endswith(f"FOR NO KEY UPDATE OF {cls.__tablename__}")
