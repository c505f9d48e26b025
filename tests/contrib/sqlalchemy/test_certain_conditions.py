"""Conditions of statements whose rows the database does not return: what is surely about the locked row alone is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    DateTime,
    Engine,
    ForeignKey,
    Integer,
    String,
    Table,
    and_,
    bindparam,
    case,
    cast,
    collate,
    column,
    create_engine,
    delete,
    exists,
    extract,
    func,
    literal_column,
    select,
    text,
    tuple_,
    type_coerce,
    update,
)  # fmt: skip
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    column_property,
    mapped_column,
    relationship,
    sessionmaker,
    with_loader_criteria,
)  # fmt: skip
from sqlalchemy.pool import StaticPool

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import UnknownRows, collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.store import tags_of


class Base(DeclarativeBase):
    pass


worn = Table(
    "worn",
    Base.metadata,
    Column("job_id", ForeignKey("job.id"), primary_key=True),
    Column("badge_id", ForeignKey("badge.id"), primary_key=True),
)


class Badge(Base):
    __tablename__ = "badge"
    id: Mapped[int] = mapped_column(primary_key=True)
    level: Mapped[int] = mapped_column(default=1)


class Job(Base):
    __tablename__ = "job"
    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(default="new")
    begins: Mapped[datetime] = mapped_column(DateTime)
    done: Mapped[int] = mapped_column(default=1)
    badges: Mapped[list[Badge]] = relationship(secondary=worn)
    total = column_property(done + done)
    levels = column_property(select(func.sum(Badge.level)).scalar_subquery())


TAGS = {Job: ["job:{id}", "state:{state}"], Badge: ["badge:{id}"]}
JOB: Any = Job.__table__
# Each holds for the second and the third of three.
CERTAIN: dict[str, Callable[[], Any]] = {
    "a part of a time": lambda: extract("day", Job.begins) > 1,
    "as another type": lambda: type_coerce(Job.id, String) != type_coerce(1, Integer),
    "a property over columns": lambda: Job.total > 2,
    "a label": lambda: (Job.done + Job.id).label("both") > 2,
    "by cases": lambda: case((Job.id == 1, "first"), else_="other") == "other",
    "in an order of letters": lambda: and_(collate(Job.state, "NOCASE") == "NEW", Job.id > 1),
    "several at once": lambda: tuple_(Job.id, Job.state).in_([(2, "new"), (3, "new")]),
    "a cast": lambda: cast(Job.id, String) != "1",
    "functions": lambda: func.round(func.abs(Job.id) - 1) > 0,
    "functions of texts": lambda: func.instr(Job.state + cast(Job.id, String), "1") == 0,
    "the name of a column as text": lambda: literal_column("id") > literal_column("1"),
    "a column without a table": lambda: column("id") > 1,
    "a value for the time": lambda: and_(Job.begins < datetime.now(UTC).replace(tzinfo=None), Job.id > 1),
    "a given value": lambda: Job.id > bindparam("least", 1),
    "nothing but keys": lambda: Job.id.in_([2, 3]),
}
OTHERS, KEYS = "other writers may change", "read the keys first"
DOUBTFUL: dict[str, tuple[Callable[[], Any], str, str]] = {
    "the time": (lambda: Job.begins < func.now(), r"now\(\)", r"pass datetime.now\(UTC\)"),
    "the date": (lambda: Job.begins < func.current_date(), "current_date", r"pass datetime.now\(UTC\)"),
    "the time in a part": (lambda: extract("hour", func.now()) > -1, r"now\(\)", r"pass datetime.now\(UTC\)"),
    "the time as text": (lambda: Job.begins < literal_column("CURRENT_TIMESTAMP"), "as text", "write it with columns"),
    "text": (lambda: text("id > 1"), "as text", "write it with columns"),
    "a query as text": (
        lambda: Job.id > literal_column("(select min(id) from badge)"), "as text", "write it with columns",
    ),
    "a function that may tell the time": (lambda: func.date(Job.begins) > "2020", r"date\(\)", KEYS),
    "chance": (lambda: func.random() > 0, "picks rows by chance", KEYS),
    "another table": (lambda: exists().where(Badge.id == Job.id), OTHERS, KEYS),
    "a query of the same table": (lambda: Job.id.in_(select(func.max(Job.id))), OTHERS, KEYS),
    "a property over another table": (lambda: Job.levels > 0, OTHERS, KEYS),
}  # fmt: skip
_SYNC = {"synchronize_session": False}


@pytest.fixture
def engine() -> Iterator[Engine]:
    """It returns nothing of an UPDATE or a DELETE, as MariaDB of an UPDATE."""
    made = create_engine("sqlite://", poolclass=StaticPool)
    made.dialect.update_returning = made.dialect.delete_returning = False
    Base.metadata.create_all(made)
    with Session(made) as session, session.begin():
        for number in (1, 2, 3):
            session.add(Job(id=number, done=number, begins=datetime(2026, 1, number), badges=[Badge(id=number)]))  # noqa: DTZ001
    yield made
    made.dispose()


def _purged(engine: Engine, statement: Any, *given: Any) -> tuple[set[int], set[str]]:
    """The rows that are as they were after a statement of a watched session, and the tags that it purges."""
    sessions, cache = sessionmaker(engine), HTTPCache()
    collector = collect_changes(sessions, cache, TAGS)
    try:
        with capture_invalidations(cache) as receipts, sessions.begin() as session:
            session.execute(statement, *given, execution_options=_SYNC)
    finally:
        collector.stop()
    with Session(engine) as session:
        kept = set(session.scalars(select(Job.id).where(Job.state == "new")))
    return kept, set[str]().union(*tags_of(receipts))


@pytest.mark.parametrize("name", CERTAIN)
@pytest.mark.parametrize("kind", ["update", "delete", "table", "criteria"])
def test_what_is_certain_of_a_row_that_is_locked_is_taken(engine: Engine, kind: str, name: str) -> None:
    """The rows are looked up by the condition, and those alone are purged."""
    condition = CERTAIN[name]()
    made: dict[str, Any] = {
        "update": update(Job).where(condition).values(state="old"),
        "delete": delete(Job).where(condition),
        "table": update(JOB).where(condition).values(state="old"),
        "criteria": update(Job).values(state="old").options(with_loader_criteria(Job, condition)),
    }
    kept, tags = _purged(engine, made[kind])
    assert kept == {1}
    beside = {"badge:2", "badge:3"} if kind == "delete" else {"state:old"}
    assert {"job:2", "job:3", "state:new"} <= tags <= {"job:2", "job:3", "state:new", *beside}


@pytest.mark.parametrize("name", DOUBTFUL)
@pytest.mark.parametrize("kind", ["update", "delete"])
def test_what_may_come_out_otherwise_is_refused_with_what_to_write(engine: Engine, kind: str, name: str) -> None:
    """Before it is run, with the reason and the cure."""
    condition, reason, cure = DOUBTFUL[name]
    statement: Any = update(Job).values(state="old") if kind == "update" else delete(Job)
    with pytest.raises(UnknownRows, match=f"{reason}.*{cure}"):
        _purged(engine, statement.where(condition()))
    with Session(engine) as session:
        assert len(session.scalars(select(Job.id).where(Job.state == "new")).all()) == 3


def test_a_condition_over_what_the_statement_sets_is_refused_for_several_sets_of_parameters(engine: Engine) -> None:
    """The second run meets the rows as the first has left them."""
    statement = update(JOB).where(JOB.c.state == bindparam("was")).values(state=bindparam("will"))
    with pytest.raises(UnknownRows, match=OTHERS):
        _purged(engine, statement, [{"was": "new", "will": "old"}, {"was": "old", "will": "older"}])


@pytest.mark.parametrize("name", ["as another type", "by cases", "functions", "nothing but keys"])
def test_links_are_deleted_by_what_is_certain(engine: Engine, name: str) -> None:
    """The same for the rows of an association table."""
    table: Any = worn
    conditions = {
        "as another type": type_coerce(table.c.job_id, String) != type_coerce(1, Integer),
        "by cases": case((table.c.job_id == 1, "first"), else_="other") == "other",
        "functions": func.round(func.abs(table.c.job_id) - 1) > 0,
        "nothing but keys": table.c.job_id.in_([2, 3]),
    }
    kept, tags = _purged(engine, delete(table).where(conditions[name]))
    assert kept == {1, 2, 3}
    assert tags == {"job:2", "job:3", "state:new", "badge:2", "badge:3"}


def test_links_are_not_deleted_by_the_time(engine: Engine) -> None:
    """The reason and the cure are those of other statements."""
    statement = delete(worn).where(func.now() > "2020")
    with pytest.raises(UnknownRows, match=r"now\(\).*pass datetime.now\(UTC\)"):
        _purged(engine, statement)
