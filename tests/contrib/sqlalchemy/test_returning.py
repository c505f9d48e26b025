"""Tables for which the database has no `RETURNING`: a statement on them runs as it is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import StaticPool, create_engine, delete, event, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import capture_invalidations


class Base(DeclarativeBase):
    pass


class Page(Base):
    """An index for a search in texts."""

    __tablename__ = "page"
    rowid: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


class Other(Base):
    """The same in another schema."""

    __tablename__ = "page"
    __table_args__ = {"schema": "other"}  # noqa: RUF012
    rowid: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


STATEMENTS: dict[str, Callable[[Any], Any]] = {
    "update": lambda cls: update(cls).where(cls.title == "a").values(title="c"),
    "delete": lambda cls: delete(cls).where(cls.title == "a"),
}


@pytest.mark.parametrize("name", STATEMENTS)
@pytest.mark.parametrize("cls", [Page, Other])
def test_a_statement_on_a_virtual_table(tmp_path: Path, cls: Any, name: str) -> None:
    """Its rows are looked up, and their tags purged."""
    engine = create_engine("sqlite://", poolclass=StaticPool)

    def attach(connection: Any, _: object) -> None:
        connection.execute("ATTACH ? AS other", (str(tmp_path / "other.db"),))

    event.listen(engine, "connect", attach)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE VIRTUAL TABLE {cls.__table__.fullname} USING fts5(title)")
    with Session(engine) as session:
        session.add_all([cls(rowid=1, title="a"), cls(rowid=2, title="b")])
        session.commit()
    cache, sessions = HTTPCache(), sessionmaker(engine)
    collector = collect_changes(sessions, cache, {cls: ["page:{rowid}"]})
    with capture_invalidations(cache) as receipts, sessions.begin() as session:
        result: Any = session.execute(STATEMENTS[name](cls))
        assert result.rowcount == 1
    collector.stop()
    engine.dispose()
    assert {tag for each in receipts for tag in each.tags} == {"page:1"}
