"""A foreign key of several columns points by all of them: a row that shares some of them points elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Engine, ForeignKeyConstraint, Integer, Table, delete, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.store import obedient, tags_of


class Own(DeclarativeBase):
    pass


class Order(Own):
    """It is one of a tenant's; it may follow on another one of theirs."""

    __tablename__ = "order"
    tenant: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(primary_key=True)
    after: Mapped[int | None]
    kind: Mapped[str] = mapped_column(default="order")
    __table_args__ = (ForeignKeyConstraint(["tenant", "after"], ["order.tenant", "order.id"], ondelete="CASCADE"),)
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "order"}  # noqa: RUF012


class Rush(Order):
    """Its second row goes with its first."""

    __tablename__ = "rush"
    tenant: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(primary_key=True)
    hours: Mapped[int] = mapped_column(default=1)
    __table_args__ = (ForeignKeyConstraint(["tenant", "id"], ["order.tenant", "order.id"], ondelete="CASCADE"),)
    __mapper_args__ = {"polymorphic_identity": "rush"}  # noqa: RUF012


class Line(Own):
    __tablename__ = "line"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[int]
    order: Mapped[int | None]
    text: Mapped[str]
    __table_args__ = (ForeignKeyConstraint(["tenant", "order"], ["order.tenant", "order.id"], ondelete="CASCADE"),)


class Shown(Own):
    """What it is mapped to shows a foreign key of a table."""

    __table__ = select(Line.__table__).where(Line.__table__.c.text != "").subquery()


class Note(Own):
    """It stays."""

    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[int | None]
    order: Mapped[int | None]
    __table_args__ = (ForeignKeyConstraint(["order", "tenant"], ["order.id", "order.tenant"], ondelete="SET NULL"),)


ORDERS: Any = Order.__table__

shelf = Table(
    "shelf",
    Own.metadata,
    Column("tenant", Integer, primary_key=True),
    Column("order", Integer, primary_key=True),
    ForeignKeyConstraint(["tenant", "order"], ["order.tenant", "order.id"], ondelete="CASCADE"),
)


class Box(Own):
    """A table of no class stands between it and its order."""

    __tablename__ = "box"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[int]
    order: Mapped[int]
    __table_args__ = (ForeignKeyConstraint(["tenant", "order"], ["shelf.tenant", "shelf.order"], ondelete="CASCADE"),)


TAGS: dict[Any, Any] = {
    Order: ["order:{tenant}-{id}"],
    Rush: ["hours:{hours}"],
    Line: ["line:{text}"],
    Shown: ["shown:{text}"],
    Note: ["note:{id}"],
    Box: ["box:{id}"],
}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """Two tenants with the same orders; of each order there is one of everything, whose number names both."""
    engine = obedient(tmp_path / "orders.db")
    Own.metadata.create_all(engine)
    every = [{"tenant": tenant, "order": order} for tenant in (1, 2) for order in (1, 2, 3)]
    numbered = [{"id": 10 * each["tenant"] + each["order"], **each} for each in every]
    with Session(engine) as session:
        for tenant in (1, 2):
            session.add_all([Order(tenant=tenant, id=1), Order(tenant=tenant, id=2)])
            session.add(Rush(tenant=tenant, id=3, after=1, hours=tenant))
        session.flush()
        session.execute(insert(shelf), every)
        session.add_all([Line(**each, text=str(each["id"])) for each in numbered])
        session.add_all([Line(id=1, tenant=1, order=None, text="none")])
        for kind in (Note, Box):
            session.add_all([kind(**each) for each in numbered])
        session.commit()
    yield engine
    engine.dispose()


DELETES: dict[str, Callable[[Session, int], Any]] = {
    "flush": lambda session, order: session.delete(session.get_one(Order, (1, order))),
    "statement": lambda session, order: session.execute(delete(Order).filter_by(tenant=1, id=order)),
    "table": lambda session, order: session.execute(delete(ORDERS).filter_by(tenant=1, id=order)),
}


@pytest.mark.parametrize("how", DELETES)
@pytest.mark.parametrize(
    ("order", "expected"),
    {
        2: {"order:1-2", "line:12", "shown:12", "note:12", "box:12"},
        1: {
            *("order:1-1", "line:11", "shown:11", "note:11", "box:11"),
            *("order:1-3", "hours:1", "line:13", "shown:13", "note:13", "box:13"),
        },
    }.items(),
)
def test_a_delete_purges_what_points_to_it_by_every_column(
    engine: Engine, order: int, expected: set[str], how: str
) -> None:
    """Other orders of the tenant, and the same orders of others, stay; so do rows that point to nothing."""
    cache, sessions = HTTPCache(), sessionmaker(engine)
    collector = collect_changes(sessions, cache, TAGS)
    try:
        with capture_invalidations(cache) as receipts, sessions.begin() as session:
            DELETES[how](session, order)
    finally:
        collector.stop()
    assert not any(receipt.everything for receipt in receipts)
    assert set().union(*tags_of(receipts)) == expected
