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
    TextClause,
    True_,
    UnaryExpression,
    Update,
    Values,
)
from sqlalchemy.orm import FromStatement, LoaderCriteriaOption, Mapper
from sqlalchemy.sql.elements import ExpressionClauseList, Grouping, TypeClause
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.visitors import cloned_traverse

from fastapi_cacheinval.contrib.sqlalchemy.functions import STEADY, is_safe, is_safe_text

__all__ = [
    "called_once",
    "criteria_of",
    "elements",
    "entity_of",
    "extra_tables",
    "is_own",
    "is_wild",
    "parameter_sets",
    "reads_itself",
    "reads_other_tables",
    "target_of",
    "top_of",
    "writes",
]

# A clause of these packages says by its kind what it does; one of the app's own may be compiled into anything.
_KNOWN = frozenset({"sqlalchemy", "sqlmodel"})
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


def criteria_of(dml: Any) -> list[Any]:
    """The options of a write that say which rows it means; the others say how what it returns is loaded."""
    options: Any = dml._with_options  # noqa: SLF001
    return [option for option in options if option._is_criteria_option]  # noqa: SLF001


def _conditions(dml: Any) -> Iterator[Any]:
    """The conditions that choose the rows of a write: its own, and those of its options as SQLAlchemy applies them."""
    yield from dml._where_criteria  # noqa: SLF001
    mapper: Any = entity_of(dml)
    for option in criteria_of(dml):
        criteria: Any = option if isinstance(option, LoaderCriteriaOption) else None
        if mapper is None or criteria is None or mapper not in criteria._all_mappers():  # noqa: SLF001
            continue
        if criteria.include_aliases or criteria.entity is mapper:
            yield criteria._resolve_where_criteria(mapper)  # noqa: SLF001


def is_wild(dml: Any) -> bool:
    """Whether its condition may come out otherwise when it is asked again, or do something besides."""
    return any(not _may_be_repeated(one) for one in elements(*_conditions(dml)))


def _may_be_repeated(one: Any) -> bool:
    is_function = isinstance(one, FunctionElement)
    if is_function:
        function = cast("Any", one)
        return is_safe(str(getattr(function, "name", "")), tuple(getattr(function, "packagenames", ())))
    if isinstance(one, BindParameter):
        return one.callable is None
    if isinstance(one, TextClause):
        return is_safe_text(one.text)
    if getattr(one, "is_literal", False):
        return is_safe_text(str(one.name))
    known = type(one).__module__.partition(".")[0] in _KNOWN
    return known and one.__visit_name__ not in ("tablesample", "sequence")


def called_once(dml: Any, parameters: Any) -> Any:
    """An UPDATE or a DELETE with the values of the `bindparam(callable_=...)` in its condition, each called once.

    It is the statement itself where there are none, or where they stand in a query.
    """
    every = list(elements(*dml._where_criteria))  # noqa: SLF001
    if not any(isinstance(one, BindParameter) and one.callable is not None for one in every):
        return dml
    if any(isinstance(one, FromClause) and not isinstance(one, Table) for one in every):
        return dml
    given = {name for each in parameter_sets(parameters) for name in each}
    values: dict[str, Any] = {}

    def call(bind: Any) -> None:
        if bind.callable is not None:
            if bind.key not in values:
                values[bind.key] = None if bind.key in given else bind.callable()
            bind.value, bind.callable = values[bind.key], None

    made: Any = dml._generate()  # noqa: SLF001
    made._where_criteria = tuple(  # noqa: SLF001
        cloned_traverse(each, {"maintain_key": True}, {"bindparam": call})
        for each in dml._where_criteria  # noqa: SLF001
    )
    return made


def is_own(dml: Any, names: frozenset[str] = frozenset()) -> bool:
    """Whether its condition is about the row at hand alone, and about none of these columns: a locked row keeps it."""
    target = target_of(dml)
    if not all(isinstance(option, LoaderCriteriaOption) for option in criteria_of(dml)):
        return False
    for one in elements(*_conditions(dml)):
        if isinstance(one, FunctionElement):
            if str(getattr(cast("Any", one), "name", "")).lower() not in STEADY:
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
