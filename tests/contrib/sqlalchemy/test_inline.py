"""A class that loads its subclasses inline: its statements write its own table, and only that is locked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ForeignKey, create_engine, delete, select, update
from sqlalchemy.dialects import postgresql
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


@pytest.mark.parametrize("cls", [Staff, Crew])
def test_only_its_own_table_islocked(cls: Any) -> None:
    """PostgreSQL refuses to lock the other side of an outer join."""
    query = str(locked(select(cls.id), cls.__mapper__).compile(dialect=postgresql.dialect()))
    assert query.endswith(f"FOR NO KEY UPDATE OF {cls.__tablename__}")
