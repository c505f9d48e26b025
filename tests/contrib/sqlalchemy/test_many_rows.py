"""Statements that change many rows: what is looked for is asked in conditions that stay small."""

from __future__ import annotations

from itertools import product
from random import Random
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, delete, event, insert, select
from sqlalchemy.orm import Session

from fastapi_cacheinval.contrib.sqlalchemy.keys import among
from tests.contrib.sqlalchemy.store import Label, Product, Store, labels


def _statement(session: Session) -> None:
    session.execute(delete(Product).where(Product.id > 3))


def _objects(session: Session) -> None:
    for found in session.query(Product).where(Product.id > 3):
        session.delete(found)


@pytest.mark.parametrize("work", [_statement, _objects])
def test_association_rows_that_go_along_are_not_asked_for_one_by_one(store: Store, work: Any) -> None:
    """A condition for each of them takes longer to make than their rows take to delete."""
    with store.engine.begin() as connection:
        connection.execute(insert(Product.__table__), [{"id": number} for number in range(4, 704)])  # type: ignore[arg-type]
        connection.execute(
            insert(labels), [{"product_id": number, "label_id": 1 + number % 2} for number in range(4, 704)]
        )
    asked: list[str] = []
    event.listen(store.engine, "before_cursor_execute", lambda _, __, statement, *___: asked.append(statement))
    with store.purged() as tags, store.sessions.begin() as session:
        work(session)
    assert tags == {*(f"product:{number}" for number in range(4, 704)), "products", "label:1", "label:2"}
    assert max(statement.count(" OR ") for statement in asked) <= 2
    with store.sessions() as session:
        assert session.scalars(select(Label.id)).all() == [1, 2]


def test_rows_by_keys_of_several_columns() -> None:
    """The condition means these rows and no others, whichever columns have few values."""
    table = Table("cell", MetaData(), *(Column(name, Integer, primary_key=True) for name in "abc"))
    every = list(product(range(4), range(3), range(5)))
    engine, random = create_engine("sqlite://"), Random(5)
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(insert(table), [dict(zip("abc", key, strict=True)) for key in every])
        for size in (0, 1, 2, 7, 30, len(every)):
            keys = random.sample(every, size)
            found = [tuple(row) for row in connection.execute(select(table).where(among(table, list(keys))))]
            assert sorted(found) == sorted(keys)
    engine.dispose()
