"""What stands in a statement: every write in it, and whether its condition may be asked a second time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, cast

from sqlalchemy import (
    BinaryExpression,
    BindParameter,
    BooleanClauseList,
    Cast,
    ClauseElement,
    ClauseList,
    ColumnClause,
    ColumnElement,
    Delete,
    False_,
    FromClause,
    Insert,
    Null,
    Table,
    True_,
    UnaryExpression,
    Update,
    Values,
)
from sqlalchemy.orm import FromStatement, Mapper
from sqlalchemy.sql.elements import ExpressionClauseList, Grouping, TypeClause
from sqlalchemy.sql.functions import FunctionElement

__all__ = [
    "elements",
    "entity_of",
    "extra_tables",
    "is_own",
    "is_wild",
    "reads_other_tables",
    "target_of",
    "top_of",
    "writes",
]

# What comes out otherwise each time it is asked, whatever the rows are.
_WILD = frozenset(
    {
        *("random", "rand", "randomblob", "random_normal", "uuid", "uuid4", "uuidv7", "uuid_generate_v1"),
        *("uuid_generate_v4", "gen_random_uuid", "newid", "newsequentialid", "sys_guid"),
        *("nextval", "next_value", "setval"),
    }
)
# What comes out the same for the same rows, on every database.
_STEADY = frozenset(
    {
        "lower",
        "upper",
        "coalesce",
        "abs",
        "length",
        "char_length",
        "trim",
        "ltrim",
        "rtrim",
        "substr",
        "replace",
        "nullif",
    }
)
_PLAIN = (
    BindParameter,
    BinaryExpression,
    UnaryExpression,
    BooleanClauseList,
    ExpressionClauseList,
    ClauseList,
    Grouping,
    Null,
    True_,
    False_,
    Cast,
    TypeClause,
)


def elements(*roots: Any) -> Iterator[Any]:
    """Everything that a statement is made of, each once.

    SQLAlchemy's own walk leaves out what is only named by a column, later rows of `values([...])`, and the criteria of
    options: a data-changing CTE may stand in each of them.
    """
    seen: dict[int, Any] = {}
    ahead = list(roots)
    while ahead:
        one = ahead.pop()
        if id(one) in seen:
            continue
        seen[id(one)] = one
        yield one
        if not isinstance(one, Table):
            ahead.extend(one.get_children())
            ahead.extend(_beside(one))


def _beside(one: Any) -> Iterator[Any]:
    if isinstance(one, ColumnElement):
        named: Any = getattr(cast("Any", one), "table", None)
        if named is not None:
            yield named
        return
    conflict: Any = getattr(one, "update_values_to_set", None)
    if conflict is not None:
        yield from _expressions(dict(conflict).values())
        yield from _expressions([getattr(one, "update_whereclause", None)])
    for option in getattr(one, "_with_options", ()):
        criteria = getattr(option, "where_criteria", None)
        if isinstance(criteria, ClauseElement):
            yield criteria
    if isinstance(one, Values):
        rows: Any = cast("Any", one)._data  # noqa: SLF001
        yield from _expressions(chain.from_iterable(chain.from_iterable(rows)))
    several: Any = getattr(one, "_multi_values", ())
    for row in chain.from_iterable(several):
        values: Any = cast("Any", row).values() if isinstance(row, Mapping) else row
        yield from _expressions(values)


def _expressions(values: Iterable[Any]) -> Iterator[Any]:
    return (value for value in values if isinstance(value, ClauseElement))


def writes(statement: Any, parameters: Any = None) -> list[Any]:
    """Every INSERT, UPDATE and DELETE in a statement, and in expressions among its parameters."""
    found = [one for one in elements(statement) if isinstance(one, Insert | Update | Delete)]
    if found and parameters:
        sets: Any = [parameters] if isinstance(parameters, Mapping) else parameters
        given = [one for each in sets for one in _expressions(cast("Mapping[str, Any]", each).values())]
        found += [one for one in elements(*given) if isinstance(one, Insert | Update | Delete)]
    return found


def top_of(statement: Any) -> Any:
    """The write that a statement is, also as `select(...).from_statement(...)`; None for any other."""
    one = statement.element if isinstance(statement, FromStatement) else statement
    return one if isinstance(one, Insert | Update | Delete) else None


def entity_of(dml: Any) -> Mapper[Any] | None:
    """The class that a write is on; None for one on a table, or on an alias."""
    entity: Any = dml.table._annotations.get("parententity")  # noqa: SLF001  # as SQLAlchemy finds it
    found: Mapper[Any] | None = entity if getattr(entity, "is_mapper", False) else None
    return found


def _written(dml: Any) -> Any:
    entity = entity_of(dml)
    # Of a class that loads its subclasses inline it names the join; SQLAlchemy writes the class's own table.
    return dml.table if entity is None else entity.local_table


def target_of(dml: Any) -> Any:
    """The table that a write is on; None for an alias or a join of tables."""
    table = _written(dml)
    plain: Any = table._deannotate() if hasattr(table, "_deannotate") else table  # noqa: SLF001
    return cast("Any", plain) if isinstance(plain, Table) else None


def _set_columns(dml: Any) -> Iterator[Any]:
    yield from getattr(dml, "_values", None) or ()
    yield from (column for column, _ in getattr(dml, "_ordered_values", None) or ())


def extra_tables(dml: Any) -> set[Any]:
    """The tables that a write changes: the one that it is on, or those in its alias or join, and of columns set."""
    named: list[Any] = [_written(dml)]
    named += [column.table for column in _set_columns(dml) if getattr(column, "table", None) is not None]
    every: list[Any] = [one for one in elements(*named) if isinstance(one, Table)]
    return {one._deannotate() for one in every}  # noqa: SLF001


def reads_other_tables(dml: Any) -> bool:
    """Whether it is an `UPDATE ... FROM` or a `DELETE ... USING`: another table beside the one that is changed."""
    values: Any = getattr(dml, "_values", None) or {}
    parts: Any = (*dml._where_criteria, *_expressions(values.values()))  # noqa: SLF001
    target = target_of(dml)
    for part in parts:
        for each in part._from_objects:  # noqa: SLF001
            if each._deannotate() is not target:  # noqa: SLF001
                return True
    return False


def is_wild(dml: Any) -> bool:
    """Whether its condition picks rows by chance: asked again, it picks others."""
    for one in elements(*dml._where_criteria):  # noqa: SLF001
        if _function(one) in _WILD or one.__visit_name__ in ("tablesample", "next_value_func", "sequence"):
            return True
    return False


def _function(one: Any) -> str | None:
    is_one = isinstance(one, FunctionElement)
    return str(getattr(cast("Any", one), "name", "")).lower() if is_one else None


def is_own(dml: Any, names: frozenset[str] = frozenset()) -> bool:
    """Whether its condition is about the row at hand alone, and about none of these columns: a locked row keeps it."""
    target = target_of(dml)
    if dml._with_options:  # noqa: SLF001
        return False
    for one in elements(*dml._where_criteria):  # noqa: SLF001
        if isinstance(one, FunctionElement):
            if _function(one) not in _STEADY:
                return False
        elif isinstance(one, ColumnClause):
            if cast("Any", one).key in names:
                return False
        elif isinstance(one, FromClause):
            if cast("Any", one)._deannotate() is not target:  # noqa: SLF001
                return False
        elif not isinstance(one, _PLAIN):
            return False
    return True
