"""What a statement says of the rows that it writes: their keys, where they stand in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from sqlalchemy import BindParameter
from sqlalchemy.orm import Mapper
from sqlalchemy.sql import ClauseElement

from fastapi_cacheinval.contrib.sqlalchemy.schema import Identity, key_of

__all__ = ["identity_in", "key_is_set", "replaces", "rows_given"]

Row = Mapping[str, Any]


def _named(values: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for column, value in values.items():
        given: Any = value
        found[getattr(column, "key", column)] = given.value if isinstance(value, BindParameter) else given
    return found


def rows_given(statement: Any, parameters: Any) -> list[dict[str, Any]]:
    """The rows of an INSERT as far as they stand in its values or its parameters, by column or attribute."""
    common = _named(getattr(statement, "_values", None) or {})
    several = [_named(row) for rows in getattr(statement, "_multi_values", ()) for row in rows]
    if isinstance(parameters, Mapping):
        several = [dict(cast("Mapping[str, Any]", parameters))]
    elif parameters:
        several = [dict(each) for each in parameters]
    return [{**common, **row} for row in several] or ([common] if common else [])


def identity_in(row: Row, names: tuple[str, ...]) -> Identity | None:
    """The values of these names in a row; None where one is missing, or is for the database to work out."""
    values = tuple(row.get(name) for name in names)
    return None if any(value is None or isinstance(value, ClauseElement) for value in values) else values


def key_of_row(row: Row, mapper: Mapper[Any]) -> Identity | None:
    """The primary key in a row, by its attributes or by its columns."""
    return identity_in(row, key_of(mapper)) or identity_in(row, tuple(str(column.key) for column in mapper.primary_key))


def key_is_set(statement: Any, mapper: Mapper[Any]) -> bool:
    """Whether an UPDATE sets the primary key."""
    pairs: Any = getattr(statement, "_ordered_values", None) or ()
    names = {*_named(getattr(statement, "_values", None) or {}), *_named(dict(pairs))}
    return not names.isdisjoint({*key_of(mapper), *(column.key for column in mapper.primary_key)})


def replaces(statement: Any) -> bool:
    """Whether an INSERT may change rows that are there: `ON CONFLICT`, `ON DUPLICATE KEY`, `OR REPLACE`."""
    return getattr(statement, "_post_values_clause", None) is not None or bool(getattr(statement, "_prefixes", ()))
