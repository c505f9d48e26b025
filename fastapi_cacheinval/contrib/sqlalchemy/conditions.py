"""Whether the condition of a write may be asked a second time, and comes out the same then."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from sqlalchemy import (
    BinaryExpression,
    BindParameter,
    BooleanClauseList,
    Case,
    Cast,
    ClauseList,
    ColumnClause,
    Extract,
    False_,
    FromClause,
    Label,
    Null,
    Table,
    TextClause,
    True_,
    TypeCoerce,
    UnaryExpression,
)
from sqlalchemy.orm import LoaderCriteriaOption
from sqlalchemy.sql.elements import CollationClause, ExpressionClauseList, Grouping, TypeClause
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.visitors import cloned_traverse

from fastapi_cacheinval.contrib.sqlalchemy.functions import STEADY, TIMES, is_name, is_safe, is_safe_text
from fastapi_cacheinval.contrib.sqlalchemy.statements import elements, entity_of, parameter_sets, target_of

__all__ = ["called_once", "criteria_of", "doubt_of", "is_wild"]

# A clause of these packages says by its kind what it does; one of the app's own may be compiled into anything.
_KNOWN = frozenset({"sqlalchemy", "sqlmodel"})
# What comes out the same for the same row if its parts do.
_STEADY_CLAUSES = (
    BindParameter,
    BinaryExpression,
    UnaryExpression,
    BooleanClauseList,
    Case,
    CollationClause,
    ExpressionClauseList,
    Extract,
    ClauseList,
    Grouping,
    Label,
    Null,
    True_,
    False_,
    Cast,
    TypeClause,
    TypeCoerce,
)
_KEYS = "(read the keys first, and name them)"
_OTHERS = f"a condition that other writers may change {_KEYS}"


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


def doubt_of(dml: Any, names: frozenset[str] = frozenset()) -> str | None:
    """Why a second look may choose other rows by the condition of a write, and what to write instead.

    None if the condition is about the row at hand alone, and about none of these columns.
    """
    if not all(isinstance(option, LoaderCriteriaOption) for option in criteria_of(dml)):
        return _OTHERS
    target = target_of(dml)
    doubts = (_doubt_of(one, target, names) for one in elements(*_conditions(dml)))
    return next((doubt for doubt in doubts if doubt is not None), None)


def _doubt_of(one: Any, target: Any, names: frozenset[str]) -> str | None:
    if isinstance(one, FunctionElement):
        name = str(getattr(cast("Any", one), "name", "")).lower()
        if name in TIMES:
            return (
                f"a condition with {name}(), which is later than in a look before it (pass datetime.now(UTC) instead)"
            )
        return None if name in STEADY else f"a condition with {name}(), which may not say the same again {_KEYS}"
    if isinstance(one, TextClause) or (getattr(one, "is_literal", False) and not is_name(str(one.name))):
        return "a condition as text, which may be about more than the row (write it with columns)"
    if isinstance(one, ColumnClause):
        return _OTHERS if cast("Any", one).key in names else None
    if isinstance(one, FromClause):
        return None if cast("Any", one)._deannotate() is target else _OTHERS  # noqa: SLF001
    return None if isinstance(one, _STEADY_CLAUSES) else _OTHERS
