"""A list of one set of parameters, or of none, is one run, as SQLAlchemy has it, and gives the result that it gives without a watch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import bindparam, delete, insert, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import sessionmaker

from fastapi_cacheinval.contrib.sqlalchemy import UnknownRows
from tests.contrib.sqlalchemy.store import Brand, Label, Product, Store

_LABEL: Any = Label.__table__
_PRODUCT: Any = Product.__table__
_UPSERT = upsert(_LABEL).on_conflict_do_update(index_elements=["id"], set_={"text": upsert(_LABEL).excluded.text})
ONE: dict[str, tuple[Any, list[dict[str, Any]], set[str]]] = {
    "insert": (insert(_LABEL), [{"text": "a"}], {"label:3"}),
    "insert, class": (insert(Label), [{"text": "a"}], {"label:3"}),
    "insert with its key": (insert(_LABEL), [{"id": 9, "text": "a"}], {"label:9"}),
    "upsert": (_UPSERT, [{"id": 1, "text": "a"}], {"label:1"}),
    "defaults": (insert(_LABEL).return_defaults(_LABEL.c.text), [{"text": "a"}], {"label:3"}),
    "several with defaults": (
        insert(_LABEL).return_defaults(_LABEL.c.text), [{"text": "a"}, {"text": "b"}], {"label:3", "label:4"},
    ),
    "several upserts of a row": (_UPSERT, [{"id": 1, "text": "a"}, {"id": 1, "text": "b"}], {"label:1"}),
    "update": (
        update(_PRODUCT).where(_PRODUCT.c.id == bindparam("key")).values(price=bindparam("new")), [{"key": 1, "new": 3}],
        {"product:1", "brand:1", "products"},
    ),
    "delete": (delete(_LABEL).where(_LABEL.c.id == bindparam("key")), [{"key": 1}], {"label:1"}),
    "update with none": (
        update(_PRODUCT).where(_PRODUCT.c.id == 1).values(brand_id=2).return_defaults(_PRODUCT.c.price), [],
        {"product:1", "brand:1", "brand:2", "products"},
    ),
    "delete with none": (delete(_LABEL).where(_LABEL.c.id == 1).returning(_LABEL.c.text, _LABEL.c.text), [], {"label:1"}),
}  # fmt: skip
_ASKED = (
    "rowcount", "returns_rows", "inserted_primary_key_rows", "returned_defaults_rows", "lastrowid", "keys", "all",
)  # fmt: skip


def _told(value: Any) -> Any:
    call: Any = value
    return list(call()) if callable(value) else value


def _said(result: Any) -> list[str]:
    """All that a result says, or the kind of the error that it raises instead."""
    said: list[str] = []
    for name in _ASKED:
        try:
            value: Any = getattr(result, name)
            said.append(f"{name}: {_told(value)}")
        except (SQLAlchemyError, AttributeError) as error:
            said.append(f"{name}: {type(error).__name__}")
    return said


# SQLAlchemy will refuse an empty list, and runs it once for now.
@pytest.mark.filterwarnings("ignore:Empty parameter sequence")
@pytest.mark.parametrize("name", ONE)
def test_the_result_is_that_without_a_watch(make_store: Callable[..., Store], name: str) -> None:
    """Rows, counts and keys; and the tags of the rows are purged."""
    statement, parameters, expected = ONE[name]
    alone, store = make_store(), make_store()
    alone.collector.stop()
    with sessionmaker(alone.engine).begin() as session:
        without = _said(session.execute(statement, parameters))
    with store.purged() as tags, store.sessions.begin() as session:
        watched = _said(session.execute(statement, parameters))
    assert watched == without
    assert tags == expected


def test_defaults_of_rows_that_are_written_at_once_are_refused(store: Store) -> None:
    """SQLAlchemy does not ask for the keys of several rows in one statement, whatever the app asks for."""
    statement = insert(Brand.__table__).values([{"name": "a"}, {"name": "b"}]).return_defaults()  # type: ignore[arg-type]
    with store.sessions() as session, pytest.raises(UnknownRows, match="return_defaults"):
        session.execute(statement)
