"""Keys that PostgreSQL takes into a row in a type of another kind, and does not compare with its column."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import (
    CHAR,
    JSON,
    Boolean,
    Engine,
    Integer,
    Numeric,
    String,
    create_engine,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, UUID
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.system.postgresql import PostgreSQL, postgresql


@pytest.fixture(scope="module")
def database() -> Iterator[PostgreSQL]:
    """One cluster for all tests here."""
    with postgresql() as server:
        yield server


@pytest.fixture
def engine(database: PostgreSQL) -> Iterator[Engine]:
    made = create_engine(database.url(database.database(), "psycopg"))
    yield made
    made.dispose()


UPPER = "ABCDEFAB-0000-0000-0000-000000000001"
# The type of the key, its column, the value that the app gives, its text in the row, and whether that is compared.
CASES: dict[str, tuple[Any, str, Any, str, bool]] = {
    "a text for a number": (Integer, "int", "5", "5", True),
    "true for a number": (Integer, "int", True, "1", True),
    "a number for a text": (String, "text", 5, "5", True),
    "a number for a truth": (Boolean, "bool", 1, "true", True),
    "a text for a decimal": (Numeric(6, 2), "numeric(6, 2)", "7.5", "7.50", True),
    "capitals": (UUID(as_uuid=False), "uuid", UPPER, UPPER.lower(), True),
    "a list": (ARRAY(Integer), "int[]", [1, 2], "{1,2}", True),
    "what is not compared at all": (JSON, "json", {"a": 1}, '{"a": 1}', False),
}
# SQLAlchemy has no objects with such keys.
OF_NO_OBJECT = {"a list", "what is not compared at all"}
FORMS: dict[str, Any] = {
    "values": lambda session, cls, key: session.execute(insert(cls).values(id=key, brand="new")),
    "parameters": lambda session, cls, key: session.execute(insert(cls), [{"id": key, "brand": "new"}]),
    "mappings": lambda session, cls, key: session.bulk_insert_mappings(cls.__mapper__, [{"id": key, "brand": "new"}]),
    "objects": lambda session, cls, key: session.bulk_save_objects([cls(id=key, brand="new")]),
    "add": lambda session, cls, key: session.add(cls(id=key, brand="new")),
}


def _classes(kind: Any) -> tuple[type[DeclarativeBase], type[Any]]:
    class Base(DeclarativeBase):
        pass

    class Kept(Base):
        __tablename__ = "kept"
        id: Mapped[Any] = mapped_column(kind, primary_key=True)
        brand: Mapped[str]

    return Base, Kept


@pytest.mark.parametrize(
    ("name", "form"), [(name, form) for name in CASES for form in FORMS if form != "add" or name not in OF_NO_OBJECT]
)
def test_a_row_is_written_as_without_a_watch(engine: Engine, name: str, form: str) -> None:
    """Its tags are purged, or everything where the database does not find it by its key."""
    kind, column, key, text, compared = CASES[name]
    _, cls = _classes(kind)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE kept (id {column}, brand text)")
    cache, sessions = HTTPCache(), sessionmaker(engine)
    collector = collect_changes(sessions, cache, {cls: ["brand:{brand}"]})
    with capture_invalidations(cache) as receipts, sessions.begin() as session:
        FORMS[form](session, cls, key)
    collector.stop()
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT id::text, brand FROM kept").all() == [(text, "new")]
    assert any(each.everything for each in receipts) is not compared
    if compared:
        assert {tag for each in receipts for tag in each.tags} >= {"brand:new"}


def test_a_bulk_update_by_keys_of_another_type(engine: Engine) -> None:
    """The rows before and after it are found as the statement finds them."""
    base, cls = _classes(Integer)
    base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(cls(id=5, brand="old"))
        session.commit()
    cache, sessions = HTTPCache(), sessionmaker(engine)
    collector = collect_changes(sessions, cache, {cls: ["kept:{id}", "brand:{brand}"]})
    with capture_invalidations(cache) as receipts, sessions.begin() as session:
        session.execute(update(cls), [{"id": "5", "brand": "new"}])
    collector.stop()
    assert {tag for each in receipts for tag in each.tags} == {"kept:5", "brand:old", "brand:new"}
    with engine.begin() as connection:
        assert connection.scalars(select(cls.brand)).all() == ["new"]


@pytest.mark.parametrize("kind", [CHAR(5), String(5).with_variant(CHAR(5), "postgresql")], ids=["plain", "variant"])
def test_a_text_that_is_filled_up_with_blanks_purges_both_of_its_spellings(engine: Engine, kind: Any) -> None:
    """A request names it without them, a trigger of the outbox too, and a loaded object with them."""
    base, cls = _classes(kind)
    base.metadata.create_all(engine)
    cache, sessions = HTTPCache(), sessionmaker(engine)
    collector = collect_changes(sessions, cache, {cls: ["kept:{id}"]})
    for work in (
        lambda session: session.add(cls(id="ab", brand="new")),
        lambda session: session.execute(update(cls).values(brand="old")),
        lambda session: session.execute(update(cls), [{"id": "ab", "brand": "new"}]),
        lambda session: session.execute(delete(cls)),
    ):
        with capture_invalidations(cache) as receipts, sessions.begin() as session:
            work(session)
        assert {tag for each in receipts for tag in each.tags} == {"kept:ab", "kept:ab%20%20%20"}
    collector.stop()
