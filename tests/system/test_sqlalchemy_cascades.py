"""A watched session locks what a delete takes along in the order in which PostgreSQL itself takes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, ForeignKey, create_engine, delete, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from tests.system.postgresql import PostgreSQL
from tests.system.sessions import in_a_thread, wait_for_a_lock


class Base(DeclarativeBase):
    pass


class Deal(Base):
    __tablename__ = "deal"
    id: Mapped[int] = mapped_column(primary_key=True)


class _Part:
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")


class Alpha(_Part, Base):
    __tablename__ = "alpha"
    deal_id: Mapped[int] = mapped_column(ForeignKey("deal.id", ondelete="CASCADE"))


class Beta(_Part, Base):
    """It stays."""

    __tablename__ = "beta"
    deal_id: Mapped[int | None] = mapped_column(ForeignKey("deal.id", ondelete="SET NULL"))


class Gamma(_Part, Base):
    """It goes, after it has been unlinked."""

    __tablename__ = "gamma"
    deal_id: Mapped[int] = mapped_column(ForeignKey("deal.id", ondelete="CASCADE"))
    first_id: Mapped[int | None] = mapped_column(ForeignKey("deal.id", ondelete="SET NULL"))


class Item(_Part, Base):
    __tablename__ = "an_item"
    alpha_id: Mapped[int] = mapped_column(ForeignKey("alpha.id", ondelete="CASCADE"))


class Piece(_Part, Base):
    __tablename__ = "piece"
    gamma_id: Mapped[int] = mapped_column(ForeignKey("gamma.id", ondelete="CASCADE"))


KINDS: list[Any] = [Alpha, Beta, Gamma, Item, Piece]
TAGS: dict[type, Any] = {Deal: ["deal:{id}"], **{kind: [kind.__tablename__ + ":{name}"] for kind in KINDS}}
WORK: dict[str, Callable[[Session], Any]] = {
    "flush": lambda session: session.delete(session.get_one(Deal, 1)),
    "statement": lambda session: session.execute(delete(Deal).where(Deal.id == 1)),
    "table": lambda session: session.execute(delete(Deal.__table__).where(Deal.id == 1)),  # type: ignore[arg-type]
}


@pytest.fixture(scope="module")
def engine(server: PostgreSQL) -> Iterator[Engine]:
    """The foreign keys have been made by and by, and not by the names of their tables."""
    made = create_engine(server.url(server.database(), "psycopg"))
    Base.metadata.create_all(made)
    with made.begin() as connection:
        for table, column, rule in (
            ("gamma", "first_id", "SET NULL"), ("beta", "deal_id", "SET NULL"), ("alpha", "deal_id", "CASCADE"),
            ("gamma", "deal_id", "CASCADE"),
        ):  # fmt: skip
            connection.execute(
                text(
                    f"ALTER TABLE {table} DROP CONSTRAINT {table}_{column}_fkey, ADD CONSTRAINT {table}_{column}_fkey "
                    f"FOREIGN KEY ({column}) REFERENCES deal ON DELETE {rule}"
                )
            )
    with Session(made) as session:
        session.add(Deal(id=1))
        session.flush()
        session.add_all([Alpha(id=1, deal_id=1), Beta(id=1, deal_id=1), Gamma(id=1, deal_id=1, first_id=1)])
        session.flush()
        session.add_all([Item(id=1, alpha_id=1), Piece(id=1, gamma_id=1)])
        session.commit()
    yield made
    made.dispose()


def free_while_it_waits(
    engine: Engine, server: PostgreSQL, work: Callable[[Session], Any], kind: Any, *, watched: bool
) -> set[str]:
    """The tables whose row nobody has, while a delete waits for the row of one."""
    with engine.connect() as other, engine.connect() as third:
        other.execute(text(f"SELECT 1 FROM {kind.__tablename__} FOR UPDATE"))
        thread, failed = in_a_thread(engine, work, TAGS if watched else None)
        try:
            wait_for_a_lock(server, engine)
            every = [each.__tablename__ for each in KINDS]
            free = {name for name in every if third.scalar(text(f"SELECT 1 FROM {name} FOR UPDATE SKIP LOCKED"))}
        finally:
            third.rollback()
            other.rollback()
            thread.join()
    assert failed == []
    return free


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__tablename__)
@pytest.mark.parametrize("name", WORK)
def test_who_waits_for_what_goes_along_has_what_it_has_without_a_watch(
    engine: Engine, server: PostgreSQL, name: str, kind: Any
) -> None:
    """In the order of the foreign keys in the catalogue, whatever they do, and level by level."""
    alone, watched = (free_while_it_waits(engine, server, WORK[name], kind, watched=each) for each in (False, True))
    assert watched == alone
