"""Watched sessions under PostgreSQL's row-level security and rules: a `RETURNING` would change what they write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, bindparam, create_engine, delete, exists, insert, literal, select, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import UnknownRows, collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.system.postgresql import PostgreSQL, postgresql


class Base(DeclarativeBase):
    pass


class Task(Base):
    __tablename__ = "task"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(default="you")
    state: Mapped[str] = mapped_column(default="open")


class Seen(Base):
    """A view of the tasks, for whoever asks."""

    __tablename__ = "seen"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str]
    state: Mapped[str]


class Owner(Base):
    __tablename__ = "owner"
    name: Mapped[str] = mapped_column(primary_key=True)


class Longer(Base):
    """A view of the view."""

    __tablename__ = "longer"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str]
    state: Mapped[str]


MINE = "owner = 'me'"
# What is asked of a row that is read, and of one that is written.
POLICIES = {
    "others are written": [
        f"FOR SELECT USING ({MINE})", "FOR UPDATE USING (true)", "FOR DELETE USING (true)",
        "FOR INSERT WITH CHECK (true)",
    ],
    "new rows may be others": [f"FOR ALL USING ({MINE}) WITH CHECK (true)"],
    "one for all": [f"FOR ALL USING ({MINE})"],
    "the same for each": [
        f"FOR SELECT USING ({MINE})", f"FOR UPDATE USING ({MINE})", f"FOR DELETE USING ({MINE})",
        f"FOR INSERT WITH CHECK ({MINE})",
    ],
}  # fmt: skip

WORK: dict[str, Callable[[Session], Any]] = {
    "update": lambda session: session.execute(update(Task).values(state="done")),
    "hide": lambda session: session.execute(update(Task).values(owner="you")),
    "by condition": lambda session: session.execute(update(Task).where(Task.id < 9).values(state="done")),
    "by another table": lambda session: session.execute(
        update(Task).where(exists(select(Owner.name).where(Owner.name == "me"))).values(state="done")
    ),
    "by query": lambda session: session.execute(
        update(Task).where(exists(select(1).where(literal(1) == 1))).values(state="done")
    ),
    "through a view": lambda session: session.execute(update(Seen).values(state="done")),
    "through two views": lambda session: session.execute(update(Longer).values(state="done")),
    "delete": lambda session: session.execute(delete(Task)),
    "delete for sets": lambda session: session.execute(
        delete(Task).where(literal(1) == bindparam("one")), [{"one": 1}, {"one": 1}]
    ),
    "insert": lambda session: session.execute(insert(Task), [{"owner": "me"}, {"owner": "me"}]),
    "insert of others": lambda session: session.execute(insert(Task), [{"owner": "you"}, {"owner": "me"}]),
    "insert from a query": lambda session: session.execute(
        insert(Task).from_select(["owner", "state"], select(literal("you"), literal("new")))
    ),
    "mappings": lambda session: session.bulk_insert_mappings(Task.__mapper__, [{"owner": "you"}, {"owner": "me"}]),
    "objects": lambda session: session.bulk_save_objects([Task(state="new"), Task(state="newer")]),
}


WIDE = {Task: "tasks", Seen: "seen", Longer: "longer"}


@pytest.fixture(scope="module")
def database() -> Iterator[PostgreSQL]:
    with postgresql() as server:
        server.psql("CREATE ROLE clerk LOGIN; CREATE DATABASE tasks")
        yield server


@pytest.fixture
def engine(database: PostgreSQL) -> Iterator[Engine]:
    """Five tasks, two of them mine, for a role that policies hold for."""
    name = "tasks"
    made = create_engine(database.url(name, "psycopg").replace("//postgres@", "//clerk@"))
    owner = create_engine(database.url(name, "psycopg"))
    with owner.begin() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS task, owner, kept CASCADE")
        for each in ("task", "owner"):
            Base.metadata.tables[each].create(connection)
        connection.exec_driver_sql("CREATE VIEW seen WITH (security_invoker = true) AS SELECT * FROM task")
        connection.exec_driver_sql("CREATE VIEW longer WITH (security_invoker = true) AS SELECT * FROM seen")
        connection.exec_driver_sql("GRANT ALL ON task, seen, longer, owner, task_id_seq TO clerk")
        connection.exec_driver_sql("INSERT INTO owner VALUES ('me')")
        rows = [{"id": number, "owner": "me" if number < 3 else "you", "state": "open"} for number in range(1, 6)]
        connection.execute(insert(Base.metadata.tables["task"]), rows)
        connection.exec_driver_sql("SELECT setval('task_id_seq', 100)")
    owner.dispose()
    yield made
    made.dispose()


def tasks(database: PostgreSQL, engine: Engine) -> str:
    return database.psql("SELECT id, owner, state FROM task ORDER BY id", str(engine.url.database))


def refused_or_done(sessions: Any, work: Callable[[Session], Any]) -> str:
    try:
        with sessions.begin() as session:
            work(session)
    except UnknownRows:
        return "refused"
    return "done"


@pytest.mark.parametrize(
    ("tags", "wide"),
    [(["task:{id}"], None), (["task:{id}", "state:{state}"], None), (["task:{id}"], WIDE)],
    ids=["key", "column", "wide"],
)
@pytest.mark.parametrize("policies", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_a_write_meets_the_same_rows_or_is_refused(
    database: PostgreSQL, engine: Engine, work: Any, policies: list[str], tags: list[str], wide: Any
) -> None:
    """Of policies that ask the same of what is read and written nothing is refused, and with wide tags nothing is."""
    script = "".join(f"CREATE POLICY p{number} ON task {each};" for number, each in enumerate(policies))
    name = str(engine.url.database)
    cache, sessions = HTTPCache(), sessionmaker(engine)
    for each in (script, "ALTER TABLE task ENABLE ROW LEVEL SECURITY"):
        database.psql(each, name)
    before = tasks(database, engine)
    database.psql("CREATE TABLE kept AS SELECT * FROM task", name)
    plain = "done"
    try:
        with sessions.begin() as session:
            work(session)
    except SQLAlchemyError as error:
        plain = type(error).__name__
    alone = tasks(database, engine)
    database.psql("DELETE FROM task; INSERT INTO task SELECT * FROM kept; SELECT setval('task_id_seq', 100)", name)
    collector = collect_changes(
        sessions,
        cache,
        {Task: tags, Seen: [f"s-{tag}" for tag in tags], Longer: [f"l-{tag}" for tag in tags]},
        wide=wide,
    )
    with capture_invalidations(cache) as receipts:
        try:
            watched = refused_or_done(sessions, work)
        except SQLAlchemyError as error:
            watched = type(error).__name__
        finally:
            collector.stop()
    if watched == "refused":
        assert wide is None
        assert policies in (POLICIES["others are written"], POLICIES["new rows may be others"])
        assert tasks(database, engine) == before
    else:
        assert (watched, tasks(database, engine)) == (plain, alone)
        assert bool(receipts) == (alone != before)


def test_a_row_that_becomes_protected_later_is_met_too(database: PostgreSQL, engine: Engine) -> None:
    """The policies come after the first statement."""
    name, cache, sessions = str(engine.url.database), HTTPCache(), sessionmaker(engine)
    collector = collect_changes(sessions, cache, {Task: ["task:{id}"]})
    try:
        assert refused_or_done(sessions, WORK["update"]) == "done"
        for each in POLICIES["others are written"][:3]:
            database.psql(f"CREATE POLICY p{each.split()[1]} ON task {each}", name)
        database.psql("ALTER TABLE task ENABLE ROW LEVEL SECURITY", name)
        with capture_invalidations(cache) as receipts:
            assert refused_or_done(sessions, WORK["delete"]) == "done"
        assert tasks(database, engine) == ""
        assert receipts[0].everything
    finally:
        collector.stop()


@pytest.mark.parametrize("order", [("public", "ruled", "public"), ("ruled", "public", "ruled")])
def test_a_rule_holds_for_the_schema_of_the_search_path_alone(
    database: PostgreSQL, engine: Engine, order: tuple[str, ...]
) -> None:
    """One class, a schema for each tenant: what the catalogue says of one is not taken for the other."""
    database.psql(
        "DROP SCHEMA IF EXISTS ruled CASCADE; CREATE SCHEMA ruled; CREATE TABLE ruled.task (LIKE task);"
        "CREATE RULE keep AS ON DELETE TO ruled.task DO INSTEAD UPDATE ruled.task SET state = 'gone' WHERE id = OLD.id;"
        "GRANT ALL ON SCHEMA ruled TO clerk; GRANT ALL ON ruled.task TO clerk",
        str(engine.url.database),
    )
    sessions = sessionmaker(engine)
    collector = collect_changes(sessions, HTTPCache(), {Task: ["task:{id}"]})

    def work(schema: str, session: Session) -> None:
        session.execute(text(f"SET LOCAL search_path = {schema}"))
        session.execute(delete(Task).where(Task.id == 1))

    told = [refused_or_done(sessions, partial(work, schema)) for schema in order]
    collector.stop()
    assert told == ["refused" if schema == "ruled" else "done" for schema in order]


def test_a_statement_that_a_rule_replaces_is_refused_or_purges_the_wide_tags(
    database: PostgreSQL, engine: Engine
) -> None:
    """`DO INSTEAD` refuses a `RETURNING`; of objects the session itself knows the rows."""
    database.psql(
        "CREATE RULE keep AS ON DELETE TO task DO INSTEAD UPDATE task SET state = 'gone' WHERE id = OLD.id",
        str(engine.url.database),
    )
    sessions = sessionmaker(engine)
    for wide, expected in ((None, "refused"), ({Task: "tasks"}, "done")):
        cache = HTTPCache()
        collector = collect_changes(sessions, cache, {Task: ["task:{id}"]}, wide=wide)
        with capture_invalidations(cache) as receipts:
            assert (
                refused_or_done(sessions, lambda session: session.execute(delete(Task).where(Task.id == 1))) == expected
            )
        collector.stop()
        assert [receipt.tags for receipt in receipts] == ([("tasks",)] if wide else [])
    with engine.connect() as connection:
        assert connection.execute(text("SELECT state FROM task WHERE id = 1")).scalar() == "gone"
