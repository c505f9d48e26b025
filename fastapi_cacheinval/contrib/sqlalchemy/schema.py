"""What falls or changes along with a row: association rows of both sides, and what the database deletes by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast
from weakref import WeakKeyDictionary

from sqlalchemy import (
    CHAR,
    NCHAR,
    Column,
    ColumnElement,
    Connection,
    ForeignKey,
    FromClause,
    Table,
    TypeDecorator,
    or_,
    select,
    true,
    tuple_,
)
from sqlalchemy.exc import NoReferenceError
from sqlalchemy.orm import Mapper
from sqlalchemy.sql.selectable import AliasedReturnsRows
from sqlalchemy.sql.visitors import iterate

from fastapi_cacheinval.contrib.sqlalchemy.keys import Identity, among, keys, matching, row_key

__all__ = [
    "Dependent",
    "Kind",
    "Link",
    "Side",
    "among_rows",
    "decides_class",
    "dependents",
    "lineage",
    "links",
    "of_class",
    "removes_rows",
    "shown_key",
    "spellings",
    "whole_of",
]

# Makes a query one that reads rows as they stand now: those that stand inside of another are made so by themselves.
Now: TypeAlias = Callable[[Any], Any]

_REMOVING: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
_BY_ITSELF = ("CASCADE", "SET NULL", "SET DEFAULT")


def lineage(mapper: Mapper[Any]) -> set[Mapper[Any]]:
    """The class, those that it inherits from and those that inherit from it: all that a row of it may be."""
    return {*mapper.iterate_to_root(), *among_rows(mapper)} & set(whole_of(mapper).self_and_descendants)


def among_rows(mapper: Mapper[Any]) -> list[Mapper[Any]]:
    """The class, and those below it whose rows are among its own: a concrete one has rows of its own, unless united."""
    united = isinstance(mapper.selectable, AliasedReturnsRows)
    others = [one for one in mapper.self_and_descendants if one.concrete and one is not mapper and not united]
    return [each for each in mapper.self_and_descendants if not any(each.isa(one) for one in others)]


def whole_of(mapper: Mapper[Any]) -> Mapper[Any]:
    """The class that all rows beside those of a class belong to: the top of its hierarchy, up to a table of its own."""
    while mapper.inherits is not None and not mapper.concrete:
        mapper = mapper.inherits
    return mapper


def of_class(mapper: Mapper[Any]) -> ColumnElement[bool]:
    """Whether a row can be loaded as an object of a class: its discriminator names that, one below it, or none.

    A row may stand in the table of a class of which it is no longer.
    """
    on: Any = mapper.polymorphic_on
    if on is None or mapper.concrete:
        return true()
    named = [each.polymorphic_identity for each in mapper.self_and_descendants if each.polymorphic_identity is not None]
    return or_(on.in_(named), on.is_(None))


def decides_class(mapper: Mapper[Any]) -> set[str]:
    """The attributes by whose values a row is of one class of a hierarchy or of another."""
    on: Any = mapper.polymorphic_on
    if on is None:
        return set()
    columns: set[Any] = {one for one in iterate(on) if isinstance(one, Column)}
    return {each.key for each in mapper.column_attrs if not columns.isdisjoint(each.columns)}


def spellings(mapper: Mapper[Any], values: Mapping[str, Any], connection: Connection) -> Iterator[Mapping[str, Any]]:
    """The values of a row, and those without the blanks that PostgreSQL fills a CHAR up with: a request has none."""
    yield values
    cut = {name: value.rstrip(" ") for name, value in values.items() if isinstance(value, str) and value[-1:] == " "}
    cut = {name: value for name, value in cut.items() if _is_filled(mapper.columns[name].type, connection)}
    if cut:
        yield {**values, **cut}


def _is_filled(kind: Any, connection: Connection) -> bool:
    here = kind._variant_mapping.get(connection.dialect.name, kind)  # noqa: SLF001
    while isinstance(here, TypeDecorator):
        here = cast("Any", here).load_dialect_impl(connection.dialect)
    return isinstance(here, CHAR | NCHAR)


def removes_rows(selectable: Any) -> bool:
    """Whether a constraint of a table has SQLite delete the rows that are in a new one's way."""
    is_table = isinstance(selectable, Table)
    if not is_table:
        return False
    table: Any = cast("Any", selectable)
    found = _REMOVING.get(table)
    if found is None:
        parts: list[Any] = [*table.constraints, *table.columns]
        options = [pair for part in parts for pair in part.dialect_options["sqlite"].items()]
        found = any("on_conflict" in name and str(rule).upper() == "REPLACE" for name, rule in options)
        _REMOVING[table] = found
    return found


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

    @property
    def tells(self) -> bool:
        """Whether the rows of the association table hold the keys of the other side as this one does itself."""
        own: Any = self.secondary.c
        pairs = zip(self.named or (), self.other.primary_key, strict=False)
        return self.named is not None and all(repr(own[name].type) == repr(column.type) for name, column in pairs)

    def others(self, identities: list[Identity], now: Now, *, told: bool = False) -> Any:
        """The keys of the other side's rows that are related to these; `told` as in `of_rows`."""
        here = select(1).where(self.join, among(self.mapper, identities)).correlate(self.secondary)
        return self.of_rows(now(here).exists(), told=told)

    def rows(self, identities: list[Identity], others: list[Identity] | None, now: Now) -> Any:
        """The keys of the association rows of these, of those alone that relate them to `others` where these are given.

        The association table is a `Table`.
        """
        here = select(1).where(self.join, among(self.mapper, identities)).correlate(self.secondary)
        query = select(*row_key(self.secondary)).where(now(here).exists())
        if others is not None:
            there = select(1).where(self.other_join, among(self.other, others)).correlate(self.secondary)
            query = query.where(now(there).exists())
        return query

    def of_rows(self, where: ColumnElement[bool] | None, *, told: bool = False) -> Any:
        """The keys of the other side's rows that rows of the association table name.

        They are `told` by these rows alone, where nothing on the other side is to be locked.
        """
        query = select(*keys(self.other)).join(self.secondary, self.other_join).distinct()
        if told:
            query = select(*(self.secondary.c[name] for name in self.named or ())).distinct()
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


def shown_key(mapper: Mapper[Any], table: Table) -> list[Any] | None:
    """What tells the rows of a table apart, as a class shows it that may be mapped to a query over the table."""
    shown = [mapper.persist_selectable.corresponding_column(column) for column in row_key(table)]
    return None if any(column is None for column in shown) else shown


@dataclass(frozen=True, slots=True)
class Side:
    """Rows of another class that change with the rows of a table.

    They are the same rows, mapped to another hierarchy, or, with a `link`, the rows that those of the table relate.
    """

    table: Table
    other: Mapper[Any]
    link: Link | None = None

    def rows(self, these: list[Identity], *, told: bool = False) -> Any:
        """The keys of the other class's rows for rows of the table, by the keys of that; None where nothing tells them.

        A class may be mapped to a query over the table, which may lack its key. `told` is as in `Link.of_rows`.
        """
        if self.link is not None:
            return self.link.of_rows(among(self.table, these), told=told)
        columns = shown_key(self.other, self.table)
        if columns is None:
            return None
        return select(*keys(self.other)).select_from(self.other.class_).where(matching(columns, these))


Kind: TypeAlias = "Mapper[Any] | Table"


@dataclass(frozen=True, slots=True)
class Dependent:
    """Rows that the database changes by itself when rows that they point to go; `goes` where they go too.

    They are of a class, or of a table that no class is mapped to. Their `columns` hold what the others have in `named`:
    one foreign key, and all of it, since a part of it points to rows of others as well. A database has it in the table,
    and of the columns, that are its `name`.
    """

    kind: Kind
    name: tuple[str, str]
    columns: tuple[Any, ...]
    named: tuple[Any, ...]
    goes: bool

    def rows(self, of: Kind, identities: list[Identity], now: Now) -> Any:
        """The keys of the rows that point to these rows of a class or of a table."""
        # Both may be of one table, or of one hierarchy: the inner query is about other rows than the outer one.
        inner = select(*self.named).select_from(_selected(of)).where(among(of, identities)).correlate(None)
        own: Any = self.columns[0] if len(self.columns) == 1 else tuple_(*self.columns)
        wanted = row_key(self.kind) if isinstance(self.kind, Table) else keys(self.kind)
        return select(*wanted).select_from(_selected(self.kind)).where(own.in_(now(inner)))


def _selected(kind: Kind) -> Any:
    return kind if isinstance(kind, Table) else kind.class_


def _referred(key: ForeignKey) -> Any:
    """The column that a foreign key points to; None where its table is not declared here."""
    try:
        return key.column
    except NoReferenceError:
        return None


def dependents(of: Kind, mappers: Sequence[Mapper[Any]]) -> Iterator[Dependent]:
    """What the database changes when rows of a class, or of a table, go: by the foreign keys of every base's tables."""
    tables: set[Any] = {of} if isinstance(of, Table) else set(of.tables)
    for other in mappers:
        if other.inherits is not None and other.local_table is other.inherits.local_table:
            continue
        for found in _falling(other, other.local_table, tables):
            if not (isinstance(of, Mapper) and _is_part(other, found, of)):
                yield found
    mapped: dict[Any, None] = {table: None for mapper in mappers for table in mapper.tables}
    for metadata in dict.fromkeys(table.metadata for table in mapped):
        for table in metadata.tables.values():
            if table not in mapped:
                yield from _falling(table, table, tables)


def _falling(kind: Kind, table: Any, tables: set[Any]) -> Iterator[Dependent]:
    """The foreign keys of a table, or of a query that shows one, by which its rows change when rows of these go."""
    by_constraint: dict[Any, list[ForeignKey]] = {}
    for key in (key for column in table.c for key in column.foreign_keys):
        by_constraint.setdefault(key.constraint, []).append(key)
    for constraint, parts in by_constraint.items():
        # A query's own copies of the keys do not say it.
        rule = " ".join((constraint.ondelete or "").upper().split())
        named = tuple(_referred(key) for key in parts)
        # PostgreSQL takes the columns that it sets as well.
        if rule.startswith(_BY_ITSELF) and all(each is not None and each.table in tables for each in named):
            columns = tuple(key.parent for key in parts)
            name = constraint.table.name, ",".join(column.name for column in constraint.columns)
            yield Dependent(kind, name, columns, named, rule == "CASCADE")


def _is_part(other: Mapper[Any], found: Dependent, of: Mapper[Any]) -> bool:
    """Whether a foreign key makes two tables of joined inheritance one row."""
    if other.inherits is None or other not in lineage(of):
        return False
    own = [set(other.get_property_by_column(each).columns) for each in other.primary_key]
    return all(any({*pair} <= each for each in own) for pair in zip(found.columns, found.named, strict=True))
