"""What is written of an object is seen when it is written: a listener may change it, and others its row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, ForeignKey, create_engine, event, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Mapper, Session, mapped_column, relationship

from tests.contrib.sqlalchemy.store import tags_of
from tests.contrib.sqlalchemy.watched import watched


class Own(DeclarativeBase):
    pass


class Order(Own):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(default="open")
    revision: Mapped[int] = mapped_column(default=0)
    lines: Mapped[list[Line]] = relationship(back_populates="order")


class Line(Own):
    __tablename__ = "line"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int | None] = mapped_column(ForeignKey("orders.id"))
    order: Mapped[Order | None] = relationship(back_populates="lines")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path / 'orders.db'}")
    Own.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Order(id=1), Line(id=1, order_id=1), Line(id=2)])
        session.commit()
    yield engine
    engine.dispose()


def purged(engine: Engine, tags: dict[Any, Any], work: Callable[[Session], object]) -> set[str]:
    with watched(engine, tags) as (session, captured):
        work(session)
        session.commit()
    return set[str]().union(*tags_of(captured))


def take_in(session: Session) -> None:
    """The order's lines are not loaded: for the order there is nothing to write."""
    session.get_one(Line, 2).order = session.get_one(Order, 1)


def take_out(session: Session) -> None:
    session.get_one(Line, 1).order = None


TAGS: dict[str, tuple[Any, set[str]]] = {
    "key": ("order:{id}", {"order:1"}),
    "columns": ("state:{state}:{revision}", {"state:open:0", "state:open:1"}),
    "a function": (lambda order: [f"order:{order.id}:{order.revision}"], {"order:1:0", "order:1:1"}),
}


@pytest.mark.parametrize("on", [Order, Own, Mapper])
@pytest.mark.parametrize("kind", TAGS)
def test_a_listener_changes_what_a_flush_only_touches(engine: Engine, kind: str, on: Any) -> None:
    """A counter of revisions, or the time of the last change, as a listener to `before_update` writes it."""

    def count(_: object, __: object, target: object) -> None:
        if isinstance(target, Order):
            target.revision += 1

    tag, expected = TAGS[kind]
    event.listen(on, "before_update", count, propagate=on is Own)
    try:
        assert purged(engine, {Order: [tag]}, take_in) == expected
    finally:
        event.remove(on, "before_update", count)
    with Session(engine) as session:
        assert session.get_one(Order, 1).revision == 1


@pytest.mark.parametrize("work", [take_in, take_out])
def test_what_is_only_touched_is_not_purged(engine: Engine, work: Callable[[Session], object]) -> None:
    """Without a listener the order's row stays as it is."""
    assert purged(engine, {Order: ["order:{id}"]}, work) == set()


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("state:{state}:{revision}", {"state:paid:0", "state:paid:5"}),
        ("state:{state}", {"state:open", "state:paid"}),
        ("order:{id}:{revision}", {"order:1:0", "order:1:5"}),
    ],
)
def test_a_tag_over_several_columns_is_that_of_the_row(engine: Engine, tag: str, expected: set[str]) -> None:
    """The object still holds what another transaction has changed since."""

    def work(session: Session) -> None:
        order = session.get_one(Order, 1)
        with engine.begin() as other:
            other.execute(update(Order).values(state="paid"))
        order.revision = 5

    assert purged(engine, {Order: [tag]}, work) == expected
