"""What stands in a statement, and every write in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, cast

from sqlalchemy import (
    ClauseElement,
    ColumnElement,
    Delete,
    FromClause,
    Insert,
    Table,
    Update,
    Values,
)
from sqlalchemy.orm import FromStatement, Mapper

__all__ = [
    "elements",
    "entity_of",
    "extra_tables",
    "parameter_sets",
    "reads_itself",
    "reads_other_tables",
    "target_of",
    "top_of",
    "writes",
]


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
        yield from _expressions([getattr(option, "where_criteria", None), *_of_loading(option)])
    if isinstance(one, Values):
        rows: Any = cast("Any", one)._data  # noqa: SLF001
        yield from _expressions(chain.from_iterable(chain.from_iterable(rows)))
    several: Any = getattr(one, "_multi_values", ())
    for row in chain.from_iterable(several):
        values: Any = cast("Any", row).values() if isinstance(row, Mapping) else row
        yield from _expressions(values)


def _of_loading(option: Any) -> Iterator[Any]:
    """The criteria and aliases of the relationships that an option loads, and its expressions."""
    for element in getattr(option, "context", ()):
        aliased: Any = getattr(element, "_of_type", None)
        yield from (*element._extra_criteria, *element.local_opts.values(), getattr(aliased, "selectable", None))  # noqa: SLF001


def _expressions(values: Iterable[Any]) -> Iterator[Any]:
    return (value for value in values if isinstance(value, ClauseElement))


def parameter_sets(parameters: Any) -> list[Mapping[str, Any]]:
    """The sets of parameters that a statement is run for, each once: one without a name if there are none."""
    if not parameters:
        return [{}]
    return [parameters] if isinstance(parameters, Mapping) else list(parameters)


def writes(statement: Any, parameters: Any = None) -> list[Any]:
    """Every INSERT, UPDATE and DELETE in a statement, and in expressions among its parameters."""
    found = [one for one in elements(statement) if isinstance(one, Insert | Update | Delete)]
    if found and parameters:
        given = [one for each in parameter_sets(parameters) for one in _expressions(each.values())]
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


def reads_itself(dml: Any) -> bool:
    """Whether an UPDATE or a DELETE surely reads a column of the row that it changes: one outside of queries."""
    target, seen = target_of(dml), set[int]()
    values: Any = getattr(dml, "_values", None) or {}
    ahead: list[Any] = [*dml._where_criteria, *_expressions(values.values())]  # noqa: SLF001
    while ahead:
        one = ahead.pop()
        table: Any = one.table if one.__visit_name__ == "column" else None
        if table is not None and table._deannotate() is target:  # noqa: SLF001
            return True
        if id(one) not in seen and not isinstance(one, FromClause):
            seen.add(id(one))
            ahead.extend(one.get_children())
    return False
