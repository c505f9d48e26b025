"""What a statement says of the rows that it writes: their keys, where they stand in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from sqlalchemy import BinaryExpression, BindParameter, BooleanClauseList, ColumnClause, Delete
from sqlalchemy.orm import Mapper
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.operators import and_, eq

from fastapi_cacheinval.contrib.sqlalchemy.keys import Identity, key_columns, key_of
from fastapi_cacheinval.contrib.sqlalchemy.schema import removes_rows
from fastapi_cacheinval.contrib.sqlalchemy.statements import elements, parameter_sets, target_of

__all__ = [
    "identity_in",
    "key_of_row",
    "keys_asked",
    "names_set",
    "on_conflict",
    "removes",
    "replaces",
    "rows_given",
    "sets",
    "writes_by_key",
]

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
    several = [
        _named(row if isinstance(row, Mapping) else dict(zip(statement.table.c, row, strict=False)))
        for rows in getattr(statement, "_multi_values", ())
        for row in rows
    ]
    if parameters:
        several = [dict(each) for each in parameter_sets(parameters)]
    return [{**common, **row} for row in several] or ([common] if common else [])


def identity_in(row: Row, names: tuple[str, ...]) -> Identity | None:
    """The values of these names in a row; None where one is missing, or is for the database to work out."""
    values = Identity(row.get(name) for name in names)
    return None if any(value is None or isinstance(value, ClauseElement) for value in values) else values


def key_of_row(row: Row, mapper: Mapper[Any]) -> Identity | None:
    """The primary key in a row, by its attributes or by its columns."""
    return identity_in(row, key_of(mapper)) or identity_in(row, tuple(str(column.key) for column in mapper.primary_key))


def _binds(statement: Any) -> set[str]:
    """The parameters that a statement names itself, in its condition or in its values."""
    return {one.key for one in elements(statement) if isinstance(one, BindParameter)}


def keys_asked(statement: Any, parameters: Any, mapper: Mapper[Any]) -> tuple[list[Identity], list[Any]] | None:
    """The keys that a condition asks for by `key = value`, whatever it asks besides; None where it does not.

    With them come the types that the condition gives the values as.
    """
    wanted: dict[Any, BindParameter[Any]] = {}
    for one in _conjuncts(statement._where_criteria):  # noqa: SLF001
        if isinstance(one, BinaryExpression) and one.operator is eq and isinstance(one.right, BindParameter):
            plain: Any = cast("Any", one.left)._deannotate() if isinstance(one.left, ColumnClause) else None  # noqa: SLF001
            if plain is not None and not one.right.expanding:
                wanted[plain] = one.right
    columns = key_columns(mapper, target_of(statement))
    if columns is None or not set(columns) <= set(wanted):
        return None
    asked = [
        Identity(row.get(wanted[column].key, wanted[column].value) for column in columns)
        for row in parameter_sets(parameters)
    ]
    if any(value is None for each in asked for value in each):
        return None
    return asked, [wanted[column].type for column in columns]


def _conjuncts(criteria: Iterable[Any]) -> Iterator[Any]:
    for one in criteria:
        if isinstance(one, BooleanClauseList) and one.operator is and_:
            yield from _conjuncts(one.clauses)
        else:
            yield one


def names_set(statement: Any, parameters: Any) -> set[str]:
    """What an UPDATE sets, by column or attribute: in its values, or by parameters that it does not name itself."""
    pairs: Any = getattr(statement, "_ordered_values", None) or ()
    names = {*_named(getattr(statement, "_values", None) or {}), *_named(dict(pairs))}
    given = {name for each in parameter_sets(parameters) for name in each}
    return names | (given - _binds(statement) if given else given)


def sets(names: set[str], mapper: Mapper[Any], keys: Iterable[str], *, doubt: bool = True) -> bool:
    """Whether an UPDATE that sets these may change these attributes of the class, which the database may do besides.

    `doubt` is the answer for a name that is no column: a hybrid, a synonym or a composite may set any.
    """
    known: set[str] = set()
    changed: set[str] = set()
    for attribute in mapper.column_attrs:
        own_names = _names_of(attribute)
        known |= own_names
        if not names.isdisjoint(own_names):
            changed |= own_names
    if names - known and doubt:
        return True
    for key in keys:
        own: Any = mapper.get_property(key)
        if not names.isdisjoint(_names_of(own)):
            return True
        for column in own.columns:
            if _moves_alone(column) or _follows(column, changed):
                return True
    return False


def writes_by_key(names: Iterable[str], mapper: Mapper[Any]) -> bool:
    """Whether SQLAlchemy's UPDATE by keys sends anything for these attributes of a class."""
    own = {attribute.key for attribute in mapper.column_attrs} - set(key_of(mapper))
    return mapper.version_id_col is not None or not own.isdisjoint(names)


def _follows(column: Any, changed: set[str]) -> bool:
    """Whether a computed column may change with columns of these names, or with what follows them in turn.

    Its expression names every column that it takes, and some columns may be set by the database itself.
    """
    if column.computed is None:
        return False
    others = [each for each in column.table.c if each is not column]
    moved = [each for each in others if each.name in changed or each.key in changed or _moves_alone(each)]
    seen: set[str] = set()
    while moved:
        one = moved.pop()
        if one.name not in seen:
            seen.add(one.name)
            if _names(column, one.name):
                return True
            moved += [each for each in others if each.computed is not None and _names(each, one.name)]
    return False


def _moves_alone(column: Any) -> bool:
    # A computed column is its own `server_onupdate`.
    by_database = column.server_onupdate is not None and column.computed is None
    return column.onupdate is not None or by_database


def _names(computed: Any, name: str) -> bool:
    text = str(computed.computed.sqltext)
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE) is not None


def _names_of(attribute: Any) -> set[str]:
    columns: Any = attribute.columns
    return {attribute.key, *(str(getattr(each, name, "")) for each in columns for name in ("key", "name"))}


def removes(statement: Any) -> bool:
    """Whether an INSERT or an UPDATE may delete rows that are in its way, and what goes along: `OR REPLACE`."""
    if any("REPLACE" in str(prefix).upper() for prefix, *_ in getattr(statement, "_prefixes", ())):
        return True
    return not isinstance(statement, Delete) and removes_rows(target_of(statement))


def on_conflict(statement: Any) -> set[str] | None:
    """The names that an INSERT may set in rows that are there; None where it may remove such rows."""
    if removes(statement):
        return None
    clause: Any = getattr(statement, "_post_values_clause", None)
    if clause is None:
        return set()
    kind = getattr(clause, "__visit_name__", "")
    if kind == "on_conflict_do_nothing":
        return set()
    if kind == "on_conflict_do_update":
        pairs: Any = clause.update_values_to_set
        return set(_named(dict(pairs)))
    return None


def replaces(statement: Any) -> bool:
    """Whether an INSERT may change rows that are there: `ON CONFLICT`, `ON DUPLICATE KEY`, `OR REPLACE`."""
    return getattr(statement, "_post_values_clause", None) is not None or on_conflict(statement) is None
