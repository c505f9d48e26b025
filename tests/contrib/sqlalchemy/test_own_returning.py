"""What a statement returns to the app is what it would return without a watch, column by column."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, func, update
from sqlalchemy.orm import Session

from tests.contrib.sqlalchemy.store import Brand, Product, Store

COLUMNS: dict[str, Callable[[], list[Any]]] = {
    "one expression": lambda: [Product.price - 10],
    "two without a name": lambda: [Product.price - 10, Product.price + 1],
    "a column and one without a name": lambda: [Product.price, Product.price + 1],
    "two of one function": lambda: [func.coalesce(Product.price, 0), func.coalesce(Product.brand_id, 0)],
    "conditions": lambda: [Product.brand_id.is_(None), Product.price > 5],
    "two of one label": lambda: [Product.price.label("n"), Product.brand_id.label("n")],
    "a label of another's name": lambda: [Product.price, Product.brand_id.label("price")],
    "two labels": lambda: [(Product.price - 1).label("a"), (Product.price - 2).label("b")],
    "a column twice": lambda: [Product.price, Product.price],
    "the key and two without a name": lambda: [Product.id, Product.price - 10, Product.price + 1],
    "two columns": lambda: [Product.price, Product.brand_id],
    "labels of our own": lambda: [Product.price.label("cacheinval_2"), Product.brand_id.label("cacheinval_3")],
}


def _update(columns: list[Any]) -> Any:
    return update(Product).where(Product.id <= 2).values(price=Product.price + Product.id).returning(*columns)


def _joined(columns: list[Any]) -> Any:
    given = update(Product).where(Product.brand_id == Brand.id, Product.id == 3).values(price=9)
    return given.returning(*columns)


def _delete(columns: list[Any]) -> Any:
    return delete(Product).where(Product.id == 2).returning(*columns)


STATEMENTS: dict[str, Callable[[list[Any]], Any]] = {"update": _update, "joined": _joined, "delete": _delete}


def _seen(session: Session, statement: Any) -> Any:
    result = session.execute(statement, execution_options={"synchronize_session": False})
    keys = list(result.keys())
    return keys, sorted(tuple(row) for row in result.all())


@pytest.mark.parametrize("kind", STATEMENTS)
@pytest.mark.parametrize("columns", COLUMNS)
def test_the_app_is_given_what_it_has_asked_for(tmp_path: Path, kind: str, columns: str) -> None:
    """Names, values and their order are those of an unwatched session, and the rows are purged."""
    (tmp_path / "alone").mkdir()
    (tmp_path / "watched").mkdir()
    alone, watched = Store(tmp_path / "alone"), Store(tmp_path / "watched")
    alone.collector.stop()
    with alone.sessions() as session:
        expected = _seen(session, STATEMENTS[kind](COLUMNS[columns]()))
        session.commit()
    with watched.sessions() as session:
        assert _seen(session, STATEMENTS[kind](COLUMNS[columns]())) == expected
        with watched.purged() as tags:
            session.commit()
    rows = {"update": {1, 2}, "joined": {3}, "delete": {2}}[kind]
    assert {f"product:{row}" for row in rows} <= tags
    alone.close()
    watched.close()
