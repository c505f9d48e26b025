"""What falls or changes along with a row: association rows of both sides, and what the database deletes by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import CHAR, Column, ColumnElement, FromClause, TypeDecorator, and_, false, or_, select
from sqlalchemy.orm import Mapper

__all__ = ["Link", "among", "dependents", "is_plain", "key_columns", "key_of", "keys", "lineage", "links"]

Identity = tuple[Any, ...]

_BY_ITSELF = frozenset({"CASCADE", "SET NULL", "SET DEFAULT"})


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


def lineage(mapper: Mapper[Any]) -> set[Mapper[Any]]:
    """The class, those that it inherits from and those that inherit from it: all that a row of it may be."""
    return {*mapper.iterate_to_root(), *mapper.self_and_descendants}


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


def among(mapper: Mapper[Any], identities: list[Identity]) -> ColumnElement[bool]:
    """Whether a row is one of these."""
    columns = keys(mapper)
    if not identities:
        return false()
    if len(columns) == 1:
        found: ColumnElement[bool] = columns[0].in_([identity[0] for identity in identities])
        return found
    return or_(*(and_(*(column == value for column, value in zip(columns, each, strict=True))) for each in identities))


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """One side of an association table: rows of `mapper` are related by it to rows of the other side.

    `named` are its columns that hold the other side's primary key, in that one's order; None where they hold less.
    """

    secondary: FromClause
    mapper: Mapper[Any]
    join: ColumnElement[bool]
    other: Mapper[Any]
    other_join: ColumnElement[bool]
    named: tuple[str, ...] | None

    def others(self, identities: list[Identity]) -> Any:
        """The keys of the other side's rows that are related to these."""
        here = select(1).where(self.join, among(self.mapper, identities)).correlate(self.secondary)
        return self.of_rows(here.exists())

    def of_rows(self, where: ColumnElement[bool] | None) -> Any:
        """The keys of the other side's rows that rows of the association table name."""
        query = select(*keys(self.other)).join(self.secondary, self.other_join).distinct()
        return query if where is None else query.where(where)


def _named(mapper: Mapper[Any], pairs: Any) -> tuple[str, ...] | None:
    by_column = {column: other.key for column, other in pairs}
    names = tuple(by_column.get(column) for column in mapper.primary_key)
    return None if None in names else names  # type: ignore[return-value]  # checked just here


def links(mappers: Iterable[Mapper[Any]]) -> Iterator[Link]:
    """Every side of every association table, whichever side declares the relationship."""
    for mapper in mappers:
        for each in mapper.relationships:
            if each.secondary is not None and each.secondaryjoin is not None and each.parent is mapper:
                here, there = each.primaryjoin, each.secondaryjoin
                near = _named(mapper, each.synchronize_pairs)
                far = _named(each.mapper, each.secondary_synchronize_pairs)
                yield Link(each.secondary, mapper, here, each.mapper, there, far)
                yield Link(each.secondary, each.mapper, there, mapper, here, near)


def dependents(mapper: Mapper[Any]) -> Iterator[tuple[Mapper[Any], Column[Any], Column[Any], bool]]:
    """Classes whose rows the database changes when rows of this one go, by which columns; True: they go too."""
    for other in mapper.registry.mappers:
        if other.inherits is not None and other.local_table is other.inherits.local_table:
            continue
        for key in other.local_table.foreign_keys:
            rule = (key.ondelete or "").upper()
            if rule in _BY_ITSELF and key.column.table in mapper.tables:
                yield other, key.parent, key.column, rule == "CASCADE"
