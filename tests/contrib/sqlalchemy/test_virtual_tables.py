"""SQLite's virtual tables return nothing of what they change: their rows are looked up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, delete, event, insert, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import UnknownRows, collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.store import tags_of


class Base(DeclarativeBase):
    pass


class Page(Base):
    """What is searched; its table is made by hand."""

    __tablename__ = "page text"
    rowid: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


class Archived(Base):
    """The same, of another file for good."""

    __tablename__ = "page text"
    __table_args__ = {"schema": "archive"}  # noqa: RUF012
    rowid: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    made = create_engine(f"sqlite:///{tmp_path / 'search.db'}")

    def attach(connection: Any, _: object) -> None:
        connection.execute(f"ATTACH '{tmp_path / 'archive.db'}' AS archive")

    event.listen(made, "connect", attach)
    with made.begin() as connection:
        for schema in ("main", "archive"):
            connection.exec_driver_sql(f'CREATE VIRTUAL TABLE {schema}."Page Text" USING fts5(title)')
            connection.exec_driver_sql(f"INSERT INTO {schema}.\"page text\" (rowid, title) VALUES (1, 'a'), (2, 'b')")
    return made


@pytest.mark.parametrize(("cls", "schema"), [(Page, None), (Page, "archive"), (Archived, None)])
@pytest.mark.parametrize("tags", [["page:{rowid}"], ["page:{rowid}", "title:{title}"]])
def test_statements_on_a_virtual_table_run_as_they_are(
    engine: Engine, cls: Any, schema: str | None, tags: list[str]
) -> None:
    """UPDATE and DELETE, also where the schema is another one, and the name is spelt otherwise than it was."""
    cache, sessions = HTTPCache(), sessionmaker(engine)
    collector = collect_changes(sessions, cache, {cls: tags})

    def work(session: Session) -> None:
        if schema is not None:
            session.connection(execution_options={"schema_translate_map": {None: schema}})
        changed: Any = session.execute(update(cls).where(cls.rowid == 1).values(title="c"))
        gone: Any = session.execute(delete(cls).where(cls.title == "b"))
        assert (changed.rowcount, gone.rowcount) == (1, 1)

    with capture_invalidations(cache) as receipts, sessions.begin() as session:
        work(session)
    collector.stop()
    (purged,) = tags_of(receipts)
    assert not receipts[0].everything
    titles = {f"title:{title}" for title in "abc"} if len(tags) > 1 else set[str]()
    assert purged == {"page:1", "page:2", *titles}
    where = schema or ("archive" if cls is Archived else "main")
    with engine.connect() as connection:
        found = connection.exec_driver_sql(f'SELECT title FROM {where}."page text" ORDER BY title')
        assert list(found.scalars()) == ["c"]
    engine.dispose()


def test_an_insert_without_keys_into_a_virtual_table(engine: Engine) -> None:
    """Nobody knows the keys of several rows: a statement is refused, and the older method purges everything."""
    cache, sessions = HTTPCache(), sessionmaker(engine)
    rows = [{"title": "c"}, {"title": "d"}]
    collector = collect_changes(sessions, cache, {Page: ["page:{rowid}"]})
    with sessions() as session, pytest.raises(UnknownRows):
        session.execute(insert(Page), rows)
    with capture_invalidations(cache) as receipts, sessions.begin() as session:
        session.bulk_insert_mappings(Page.__mapper__, rows)
    collector.stop()
    with engine.connect() as connection:
        assert connection.exec_driver_sql('SELECT count(*) FROM "page text"').scalar() == 4
    engine.dispose()
    assert [each.everything for each in receipts] == [True]
