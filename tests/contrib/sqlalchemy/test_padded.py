"""A `CHAR(n)` comes back from PostgreSQL with blanks that neither a route nor a trigger has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import CHAR, NCHAR, Integer, TypeDecorator, create_engine, delete, insert, update
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.store import tags_of


class Own(TypeDecorator[str]):
    """A type of the app over a CHAR."""

    impl = CHAR
    cache_ok = True


def changed(session: Session, kind: Any) -> None:
    session.get_one(kind, 1).price = 2


def changed_by_statement(session: Session, kind: Any) -> None:
    session.execute(update(kind).values(price=3))


def deleted(session: Session, kind: Any) -> None:
    session.execute(delete(kind))


@pytest.mark.parametrize("work", [changed, changed_by_statement, deleted])
@pytest.mark.parametrize("column", [CHAR(5), NCHAR(5), Own(5)])
def test_a_tag_is_purged_with_the_blanks_of_its_value_and_without(tmp_path: Path, column: Any, work: Any) -> None:
    """A page may have the tag from a path or from an object; SQLite keeps the blanks as PostgreSQL makes them."""

    class Base(DeclarativeBase):
        pass

    class Coin(Base):
        __tablename__ = "coin"
        id = mapped_column(Integer, primary_key=True)
        code = mapped_column(column)
        price = mapped_column(Integer)

    engine = create_engine(f"sqlite:///{tmp_path / 'coins.db'}")
    Base.metadata.create_all(engine)
    cache, sessions = HTTPCache(), sessionmaker(engine)
    with sessions.begin() as session:
        session.execute(insert(Coin).values(id=1, code="ab   ", price=1))
    collector = collect_changes(sessions, cache, {Coin: ["code:{code}", "coin:{id}:{code}"]})
    with capture_invalidations(cache) as receipts, sessions.begin() as session:
        work(session, Coin)
    collector.stop()
    engine.dispose()
    padded = {"code:ab%20%20%20", "coin:1:ab%20%20%20"}
    assert tags_of(receipts) == [{"code:ab", "coin:1:ab", *padded}]
