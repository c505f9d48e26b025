"""Primary keys: which columns they are, how they are asked for, and whether what an app gives stands so in the row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import sqlalchemy as types
from sqlalchemy import ColumnElement, Table, TypeDecorator, and_, bindparam, false, or_, tuple_
from sqlalchemy.orm import Mapper

__all__ = [
    "Identity",
    "among",
    "fits",
    "is_plain",
    "key_columns",
    "key_of",
    "keys",
    "kinds_of",
    "matching",
    "row_key",
    "together",
]

# Of these alone, and of no type below them, every value has one spelling.
_NAMED: dict[str, type] = {
    **dict.fromkeys(("Integer", "SmallInteger", "BigInteger", "INTEGER", "SMALLINT", "BIGINT"), int),
    **dict.fromkeys(("String", "Text", "Unicode", "UnicodeText", "VARCHAR", "NVARCHAR", "TEXT"), str),
    **dict.fromkeys(("Uuid", "UUID"), UUID),
}
_PLAIN: dict[Any, type] = {getattr(types, name): of for name, of in _NAMED.items()}
_SCALARS = frozenset({int, str, float, Decimal, bool, date, datetime, time, timedelta, bytes, UUID})


class Identity(tuple[Any, ...]):
    """The primary key of a row, in its order.

    Two are the same if their values are written alike everywhere: 1 is not True. A value need not be hashable.
    """

    __slots__ = ()

    def __hash__(self) -> int:
        try:
            return super().__hash__()
        except TypeError:
            return hash(repr(self))

    def __eq__(self, other: object) -> bool:
        values: Any = other
        return isinstance(other, tuple) and super().__eq__(values) and all(map(_alike, self, values))

    def __ne__(self, other: object) -> bool:
        return not self == other


def _alike(one: Any, other: Any) -> bool:
    return type(one) is type(other) and (type(one) is not Decimal or str(one) == str(other))


def key_of(mapper: Mapper[Any]) -> tuple[str, ...]:
    """The attributes of the primary key, in its order."""
    return tuple(mapper.get_property_by_column(column).key for column in mapper.primary_key)


def keys(mapper: Mapper[Any]) -> list[Any]:
    """The attributes of a class's primary key, to select."""
    return [getattr(mapper.class_, key) for key in key_of(mapper)]


def kinds_of(of: Mapper[Any] | Table) -> list[Any]:
    """The types of the values that tell the rows of a class, or of a table, apart."""
    return [column.type for column in (row_key(of) if isinstance(of, Table) else of.primary_key)]


def is_plain(kind: Any, value: Any) -> bool:
    """Whether a value is surely in its row what it is here, and finds no row of another: it is written in one way only.

    PostgreSQL cuts spaces off a text that is too long.
    """
    if value is None:
        return not isinstance(kind, TypeDecorator)
    for each in (kind, *kind._variant_mapping.values()):  # noqa: SLF001
        if _PLAIN.get(type(each)) is not type(value) or getattr(each, "collation", None) is not None:
            return False
        if isinstance(value, UUID):
            if not each.as_uuid:
                return False
        elif isinstance(value, str) and each.length is not None and len(value) > each.length:
            return False
    return True


def fits(kind: Any, value: Any) -> bool:
    """Whether a value is of the type that the column's own values have.

    A database takes others into a row, and may refuse to compare them.
    """
    if value is None:
        return True
    try:
        known: Any = (kind.impl_instance if isinstance(kind, TypeDecorator) else kind).python_type
    except NotImplementedError:
        return False
    return type(value) is known and (known in _SCALARS or isinstance(value, Enum))


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


def among(
    of: Mapper[Any] | Table, identities: Iterable[Sequence[Any]], kinds: Sequence[Any] | None = None
) -> ColumnElement[bool]:
    """Whether a row of a class, or of a table, is one of these.

    The values are given as those of the columns, like those that SQLAlchemy itself gives to find a row, or as of these
    types. By its own guess it would compare an INTEGER with a text.
    """
    return matching(row_key(of) if isinstance(of, Table) else keys(of), identities, kinds or kinds_of(of))


def matching(
    columns: Sequence[Any], identities: Iterable[Sequence[Any]], kinds: Sequence[Any] | None = None
) -> ColumnElement[bool]:
    """Whether these columns have the values of one of these keys."""
    given = kinds or [column.type for column in columns]
    return _matching(list(zip(columns, given, strict=True)), [Identity(each) for each in identities])


def together(columns: Sequence[Any], identities: Iterable[Identity], kinds: Sequence[Any]) -> ColumnElement[bool]:
    """As `matching`, by one list of whole keys: MariaDB finds each of these by its index, and passes no other row."""
    given = list(identities)
    if len(columns) == 1 or not given or any(None in each for each in given):
        return matching(columns, given, kinds)
    return tuple_(*columns, types=kinds).in_([tuple(each) for each in given])


def _matching(columns: Sequence[tuple[Any, Any]], identities: list[Identity]) -> ColumnElement[bool]:
    if not identities:
        return false()
    if len(columns) == 1:
        ((column, kind),) = columns
        given = [identity[0] for identity in identities if identity[0] is not None]
        found: ColumnElement[bool] = column.in_(bindparam(None, given, kind, unique=True, expanding=True))
        return found if len(given) == len(identities) else or_(found, column.is_(None))
    # By the column with the fewest values: a condition for each row would take long to make and to compile.
    place = min(range(len(columns)), key=lambda at: len({Identity(each[at : at + 1]) for each in identities}))
    groups: dict[Identity, list[Identity]] = {}
    for each in identities:
        rest = Identity((*each[:place], *each[place + 1 :]))
        groups.setdefault(Identity(each[place : place + 1]), []).append(rest)
    others = [*columns[:place], *columns[place + 1 :]]
    return or_(*(and_(_is(*columns[place], *value), _matching(others, rest)) for value, rest in groups.items()))


def _is(column: Any, kind: Any, value: Any) -> ColumnElement[bool]:
    found: ColumnElement[bool] = (
        column.is_(None) if value is None else column == bindparam(None, value, kind, unique=True)
    )
    return found
