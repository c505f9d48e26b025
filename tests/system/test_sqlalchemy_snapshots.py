"""At REPEATABLE READ a transaction reads rows as they stood: PostgreSQL is asked whether others have changed them since."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Column, Engine, ForeignKey, Table, create_engine, event, insert, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from tests.contrib.sqlalchemy.watched import watched
from tests.system.postgresql import PostgreSQL


class Own(DeclarativeBase):
    pass


shown = Table(
    "shown",
    Own.metadata,
    Column("room_id", ForeignKey("room.id"), primary_key=True),
    Column("work_id", ForeignKey("work.id"), primary_key=True),
)


class Room(Own):
    __tablename__ = "room"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="old")
    works: Mapped[list[Work]] = relationship(secondary=shown)


class Work(Own):
    __tablename__ = "work"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="old")
    kind: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "work"}  # noqa: RUF012


class Statue(Work):
    """A part of it stands in a table of its own."""

    __tablename__ = "statue"
    id: Mapped[int] = mapped_column(ForeignKey("work.id"), primary_key=True)
    height: Mapped[int] = mapped_column(default=0)
    __mapper_args__ = {"polymorphic_identity": "statue"}  # noqa: RUF012


def by_sqlalchemy(level: str) -> Callable[[str], Engine]:
    return lambda url: create_engine(url, isolation_level=level)


def by_option(url: str) -> Engine:
    return create_engine(url, connect_args={"options": r"-c default_transaction_isolation=repeatable\ read"})


def by_database(url: str) -> Engine:
    """Once SQLAlchemy has asked for the level of the engine's first connection."""
    made = create_engine(url)
    with made.begin() as connection:
        name = made.url.database
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
    made.dispose()
    return made


def by_statement(event_name: str, statement: str) -> Callable[[str], Engine]:
    """The app's own SQL, at the begin of each connection or of each transaction."""

    def make(url: str) -> Engine:
        made = create_engine(url)

        def heard(connection: Any, *_: object) -> None:
            connection.execute(statement) if event_name == "connect" else connection.exec_driver_sql(statement)
            if event_name == "connect":
                connection.commit()

        event.listen(made, event_name, heard)
        return made

    return make


LEVELS: dict[str, Callable[[str], Engine]] = {
    "READ COMMITTED": by_sqlalchemy("READ COMMITTED"),
    "REPEATABLE READ": by_sqlalchemy("REPEATABLE READ"),
    "an option of the connection": by_option,
    "a setting of the database": by_database,
    "SET TRANSACTION": by_statement("begin", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"),
    "SET LOCAL": by_statement("begin", "SET LOCAL transaction_isolation = 'serializable'"),
    "SET SESSION": by_statement(
        "connect", "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ"
    ),
}


@pytest.fixture(params=LEVELS)
def engine(server: PostgreSQL, request: pytest.FixtureRequest) -> Iterator[Engine]:
    made = LEVELS[request.param](server.url(server.database(), "psycopg"))
    Own.metadata.create_all(made)
    with Session(made) as session:
        session.add_all([Room(id=1), Statue(id=1), Statue(id=2)])
        session.flush()
        session.execute(insert(shown), [{"room_id": 1, "work_id": 1}])
        session.commit()
    yield made
    made.dispose()


TAGS: dict[str, dict[Any, Any]] = {
    "templates": {Work: ["work:{name}"]},
    "functions": {Work: [lambda work: [f"work:{work.name}"]]},
}
WORK: dict[str, Callable[[Session, Room, Work], object]] = {
    "a link": lambda _, room, work: room.works.append(work),
    "a statement on the other table": lambda session, *_: session.execute(
        update(Statue).where(Statue.id == 2).values(height=3)
    ),
    "a statement on a table": lambda session, *_: session.execute(
        update(Statue.__table__).where(Statue.__table__.c.id == 2).values(height=3)  # type: ignore[arg-type]
    ),
}


def purged(engine: Engine, kind: str, work: str, others: dict[str, Any]) -> tuple[set[str], bool]:
    """The tags that are purged, and whether everything is, where another session changes the row in between."""
    with watched(engine, TAGS[kind]) as (session, captured):
        room, statue = session.get_one(Room, 1), session.get_one(Work, 2)
        assert len(room.works) == 1
        if others:
            with engine.begin() as other:
                other.execute(update(Work.__table__).where(Work.__table__.c.id == 2).values(others))  # type: ignore[arg-type]
        WORK[work](session, room, statue)
        session.flush()
        assert statue.name == "old"
        session.commit()
    return {tag for one in captured for tag in one.tags}, any(one.everything for one in captured)


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("kind", TAGS)
def test_a_row_that_others_have_changed_is_not_missed(engine: Engine, kind: str, work: str) -> None:
    """Its tags are those of the row now, or nobody knows them. What the app itself has loaded stays as it is."""
    tags, everything = purged(engine, kind, work, {"name": "new"})
    assert everything or "work:new" in tags


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("kind", TAGS)
def test_a_row_that_nobody_has_changed_is_purged_alone(engine: Engine, kind: str, work: str) -> None:
    """The question is about the rows that are read, and about no others."""
    assert purged(engine, kind, work, {}) == ({"work:old"}, False)


@pytest.mark.parametrize("kind", TAGS)
def test_a_row_that_others_change_right_before_the_commit_is_not_missed(engine: Engine, kind: str) -> None:
    """No query of the transaction comes after it: the row is read once more when the transaction is over."""
    with watched(engine, TAGS[kind]) as (session, captured):
        room, work = session.get_one(Room, 1), session.get_one(Work, 2)
        room.works.append(work)
        session.flush()
        with engine.begin() as other:
            other.execute(update(Work.__table__).where(Work.__table__.c.id == 2).values(name="new"))  # type: ignore[arg-type]
        session.commit()
    assert {tag for one in captured for tag in one.tags} == {"work:old", "work:new"}


def test_a_question_leaves_no_lock(engine: Engine) -> None:
    """Another session can still change a row that is only linked."""
    sessions = sessionmaker(engine)
    collector = collect_changes(sessions, HTTPCache(enabled=False), TAGS["templates"])
    try:
        with sessions() as session, engine.connect() as other:
            session.execute(insert(shown), [{"room_id": 1, "work_id": 2}])
            other.exec_driver_sql("SELECT 1 FROM work WHERE id = 2 FOR NO KEY UPDATE NOWAIT")
    finally:
        collector.stop()
