"""A condition that does something, or that comes out otherwise each time, is evaluated by the app's statement alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import bindparam, delete, event, func, literal_column, select, text, update
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import with_loader_criteria
from sqlalchemy.sql import ColumnElement

from fastapi_cacheinval.contrib.sqlalchemy import UnknownRows
from tests.contrib.sqlalchemy.store import Product, Store, labels


class Ticket(ColumnElement[int]):
    """A clause of the app's own."""

    inherit_cache = True


@compiles(Ticket)
def _compiled(*_: object, **__: object) -> str:
    return "take_ticket()"


CONDITIONS: dict[str, Callable[[], Any]] = {
    "function": lambda: Product.id == func.take_ticket(),
    "function in a subquery": lambda: Product.id == select(func.take_ticket()).scalar_subquery(),
    "function in a CTE": lambda: Product.id.in_(select(select(func.take_ticket().label("n")).cte().c.n)),
    "function of a schema": lambda: Product.id == func.mine.lower(Product.id),
    "text": lambda: text("id = take_ticket()"),
    "text, quoted": lambda: text('id = "take_ticket" ()'),
    "text, in a column": lambda: Product.id == literal_column("take_ticket()"),
    "text with a comment": lambda: text("id = take_ticket/**/()"),
    "clause of the app": lambda: Product.id == Ticket(),
    "random": lambda: func.random() > 0,
    "callable in a CTE": lambda: Product.id.in_(
        select(select(Product.id).where(Product.id == bindparam("x", callable_=lambda: 1)).cte().c.id)
    ),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_function_that_is_not_known_to_be_harmless_is_never_called_twice(store: Store, name: str) -> None:
    """A statement whose rows have to be looked up is refused, before anything is evaluated."""
    calls: list[int] = []
    event.listen(store.engine, "connect", lambda made, _: _offer(made, calls))
    store.engine.dispose()
    with store.sessions() as session, pytest.raises(UnknownRows, match="calls a function"):
        session.execute(
            update(Product).where(CONDITIONS[name]()).values(brand_id=2).execution_options(synchronize_session=False)
        )
    assert calls == []


def _offer(connection: Any, calls: list[int]) -> None:
    def take() -> int:
        calls.append(1)
        return len(calls)

    connection.create_function("take_ticket", 0, take)


@pytest.mark.parametrize("name", ["function", "text", "function in a subquery", "clause of the app"])
def test_a_statement_that_needs_no_look_calls_its_functions_as_without_a_watch(
    make_store: Callable[..., Store], name: str
) -> None:
    """Rows whose tags stay as they are come from `RETURNING` alone."""
    counts: list[tuple[Any, int]] = []
    for watched in (True, False):
        store = make_store({Product: ["product:{id}"]})
        if not watched:
            store.collector.stop()
        calls: list[int] = []
        event.listen(store.engine, "connect", lambda made, _, calls=calls: _offer(made, calls))
        store.engine.dispose()
        statement = update(Product).where(CONDITIONS[name]()).values(price=2)
        with store.sessions.begin() as session:
            found: Any = session.execute(statement, execution_options={"synchronize_session": False})
        counts.append((found.rowcount, len(calls)))
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    "condition",
    [
        func.lower(Product.kind) == "product",
        func.date(func.now()) > func.date("2000-01-01"),
        Product.id.in_(select(func.max(Product.id))),
        text("lower(kind) = 'product' AND id IN (1, 2) AND NOT (id = 9)"),
        literal_column("abs(product.id)") < 3,
    ],
)
def test_functions_that_only_answer_are_asked_again(store: Store, condition: Any) -> None:
    """The rows are looked up by the condition of the statement."""
    with store.purged() as tags, store.sessions.begin() as session:
        session.execute(
            update(Product).where(condition).values(brand_id=2).execution_options(synchronize_session=False)
        )
    assert tags >= {"brand:2", "products"}
    assert len(tags) > 2


@pytest.mark.parametrize("kind", ["update", "delete", "twice", "table", "criteria", "query"])
def test_a_callable_of_a_parameter_is_called_once(store: Store, kind: str) -> None:
    """The rows that are looked up and those that are changed are found by the same value."""
    values = iter([1, 2, 3])
    given: Any = bindparam("x", callable_=lambda: next(values))
    table: Any = Product.__table__
    made: dict[str, Any] = {
        "update": update(Product).where(Product.id == given).values(brand_id=2),
        "delete": delete(Product).where(Product.id == given),
        "twice": update(Product).where(Product.id >= given, Product.id <= given).values(brand_id=2),
        "table": update(table).where(table.c.id == given).values(brand_id=2),
        "query": update(Product)
        .where(Product.id.in_(select(Product.id).where(Product.id == given)))
        .values(brand_id=2),
        "criteria": update(Product)
        .where(Product.id == given)
        .values(brand_id=2)
        .options(with_loader_criteria(Product, Product.id < 3)),
    }
    tags: set[str] = set()
    for _ in range(2):
        with store.purged() as purged, store.sessions() as session:
            session.execute(made[kind].execution_options(synchronize_session=False))
            session.commit()
        tags = purged
    assert "product:2" in tags
    assert not tags & {"product:1", "product:3"}
    assert next(values) == 3


def test_a_callable_of_a_parameter_that_is_given_is_not_called(store: Store) -> None:
    """The parameters of the call count, as without a watch."""
    given: Any = bindparam("x", callable_=lambda: 1 / 0)
    with store.purged() as tags, store.sessions.begin() as session:
        session.execute(update(Product).where(Product.id == given).values(brand_id=2), {"x": 1})
    assert "product:1" in tags


def test_a_callable_in_the_condition_of_a_link_is_called_once(store: Store) -> None:
    """The same for statements on association tables."""
    with store.sessions.begin() as session:
        session.execute(labels.insert(), [{"product_id": number, "label_id": 1} for number in (1, 2)])
    values = iter([1, 2])
    given: Any = bindparam("x", callable_=lambda: next(values))
    with store.purged() as tags, store.sessions.begin() as session:
        assert session.execute(delete(labels).where(labels.c.product_id == given)).rowcount == 1  # type: ignore[attr-defined]
    assert tags == {"product:1", "brand:1", "products", "label:1"}
