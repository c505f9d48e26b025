"""Row-level security of PostgreSQL: a statement changes the rows that it changes without a watch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, delete, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.system.postgresql import PostgreSQL, postgresql


@pytest.fixture(scope="module")
def database() -> Iterator[PostgreSQL]:
    """One cluster for all tests here, with a role that sees its own notes and may change all of them."""
    with postgresql() as server:
        server.psql("CREATE ROLE writer LOGIN")
        yield server


_POLICIES = """
ALTER TABLE "a ""note'" ENABLE ROW LEVEL SECURITY;
GRANT ALL ON "a ""note'" TO writer;
CREATE POLICY sees ON "a ""note'" FOR SELECT USING (owner = 'me');
CREATE POLICY updates ON "a ""note'" FOR UPDATE USING (true);
CREATE POLICY deletes ON "a ""note'" FOR DELETE USING (true);
"""


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "a \"note'"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str]
    state: Mapped[str] = mapped_column(default="new")


WHOLE = {"update": update(Note).values(state="old"), "delete": delete(Note)}
PART = {
    "update": update(Note).where(Note.id > 0).values(state="old"),
    "delete": delete(Note).where(Note.id > 0),
}


@pytest.mark.parametrize("tags", [["note:{id}"], ["note:{id}", "state:{state}"]], ids=["key", "state"])
@pytest.mark.parametrize(("statements", "count"), [(WHOLE, 5), (PART, 2)], ids=["whole", "part"])
@pytest.mark.parametrize("name", WHOLE)
def test_rows_that_the_role_may_change_and_not_see(
    database: PostgreSQL, tags: Any, statements: Any, count: int, name: str
) -> None:
    """The hidden `RETURNING` leaves none out; where some are not seen, everything is purged."""
    where = database.database()
    owner = create_engine(database.url(where, "psycopg"))
    Base.metadata.create_all(owner)
    database.psql(_POLICIES, where)
    with Session(owner) as session:
        session.add_all(Note(id=number, owner="me" if number < 3 else "you") for number in range(1, 6))
        session.commit()
    owner.dispose()
    engine = create_engine(database.url(where, "psycopg"))
    cache, sessions = HTTPCache(), sessionmaker(engine)
    collector = collect_changes(sessions, cache, {Note: tags})
    with capture_invalidations(cache) as receipts, sessions.begin() as session:
        session.execute(text("SET LOCAL ROLE writer"))
        result: Any = session.execute(statements[name])
        assert result.rowcount == count
    collector.stop()
    engine.dispose()
    assert any(each.everything for each in receipts) is (count == 5)
    assert {tag for each in receipts for tag in each.tags} >= ({"note:1", "note:2"} if count == 2 else set())
