"""Primary keys: which columns they are, how they are asked for, and whether what an app gives stands so in the row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import CHAR, ColumnElement, Table, TypeDecorator, and_, false, or_
from sqlalchemy.orm import Mapper

__all__ = ["Identity", "among", "is_plain", "key_columns", "key_of", "keys", "row_key"]

Identity = tuple[Any, ...]


def key_of(mapper: Mapper[Any]) -> tuple[str, ...]:
    """The attributes of the primary key, in its order."""
    return tuple(mapper.get_property_by_column(column).key for column in mapper.primary_key)


def keys(mapper: Mapper[Any]) -> list[Any]:
    """The attributes of a class's primary key, to select."""
    return [getattr(mapper.class_, key) for key in key_of(mapper)]


def is_plain(kind: Any, value: Any) -> bool:
    """Whether a value is surely in its row what it is here: it is written in one way only."""
    if isinstance(kind, TypeDecorator | CHAR):
        return False
    return value is None or (type(value) in (int, str, UUID) and type(value) is _python_type(kind))


def _python_type(kind: Any) -> type | None:
    try:
        found: type = kind.python_type
    except NotImplementedError:
        return None
    return found


def key_columns(mapper: Mapper[Any], table: Any) -> list[Any] | None:
    """The columns of a table of the class that hold its primary key, in its order; None where the table has not all."""
    found: list[Any] = []
    for key in mapper.primary_key:
        own = mapper.get_property_by_column(key)
        here = [column for column in own.columns if column.table is table]
        if not here:
            return None
        found.append(here[0])
    return found


def row_key(table: Any) -> tuple[Any, ...]:
    """The columns that tell the rows of a table apart."""
    return tuple(table.primary_key) or tuple(table.c)


def among(of: Mapper[Any] | Table, identities: list[Identity]) -> ColumnElement[bool]:
    """Whether a row of a class, or of a table, is one of these."""
    return _matching(row_key(of) if isinstance(of, Table) else keys(of), identities)


def _matching(columns: Sequence[Any], identities: list[Identity]) -> ColumnElement[bool]:
    if not identities:
        return false()
    if len(columns) == 1:
        found: ColumnElement[bool] = columns[0].in_([identity[0] for identity in identities])
        return found
    # By the column with the fewest values: a condition for each row would take long to make and to compile.
    place = min(range(len(columns)), key=lambda at: len({each[at] for each in identities}))
    groups: dict[Any, list[Identity]] = {}
    for each in identities:
        groups.setdefault(each[place], []).append((*each[:place], *each[place + 1 :]))
    others = [*columns[:place], *columns[place + 1 :]]
    return or_(*(and_(columns[place] == value, _matching(others, rest)) for value, rest in groups.items()))
