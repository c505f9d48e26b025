"""The order in which rows are locked: that in which the app's own write takes them, or two of these wait in a ring.

SQLAlchemy writes the rows of a flush by their keys, and those of a list in its order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Text, case, cast
from sqlalchemy.orm import Mapper

from fastapi_cacheinval.contrib.sqlalchemy.catalogues import foreign_keys_to
from fastapi_cacheinval.contrib.sqlalchemy.keys import Identity, matching
from fastapi_cacheinval.contrib.sqlalchemy.schema import Dependent, Kind
from fastapi_cacheinval.contrib.sqlalchemy.sqlalchemy_private import tables_in_order

__all__ = ["by_key", "followed", "is_by_key", "order_of", "parts", "turns"]

# Rows in one query.
_MOST = 400
_UNSORTED = (TypeError, ValueError, ArithmeticError)


def parts(identities: Iterable[Identity]) -> Iterator[list[Identity]]:
    """Keys, each once, for one query after the other."""
    every = list(dict.fromkeys(map(Identity, identities)))
    for begin in range(0, len(every), _MOST):
        yield every[begin : begin + _MOST]


def by_key(identities: Iterable[Identity]) -> list[Identity]:
    """Keys in the order of a flush; as they are where Python cannot sort them, which no flush then can."""
    every = list(identities)
    try:
        return sorted(every)
    except _UNSORTED:
        return every


def is_by_key(identities: Sequence[Identity]) -> bool:
    """Whether keys are in that order."""
    try:
        return all(one <= other for one, other in pairwise(identities))
    except _UNSORTED:
        return True


def turns(identities: list[Identity], connection: Connection) -> Iterator[list[Identity]]:
    """The keys of each query that locks rows in this order: others than PostgreSQL lock them as they find them."""
    begin = 0
    for at in range(1, len(identities)):
        if connection.dialect.name not in ("postgresql", "sqlite") and not is_by_key(identities[at - 1 : at + 1]):
            yield identities[begin:at]
            begin = at
    if identities:
        yield identities[begin:]


def order_of(
    columns: Sequence[Any], identities: list[Identity], kinds: Sequence[Any], connection: Connection
) -> list[Any]:
    """What a query that locks the rows with these keys is ordered by.

    A database may sort texts otherwise than Python.
    """
    if connection.dialect.name != "postgresql":
        return list(columns)
    if not is_by_key(identities):
        return [case(*((matching(columns, [each], kinds), place) for place, each in enumerate(identities)))]
    texts = [any(isinstance(each[place], str) for each in identities) for place in range(len(columns))]
    return [cast(column, Text).collate("C") if text else column for column, text in zip(columns, texts, strict=True)]


def followed(
    of: Kind, dependents: Callable[[Kind], Iterable[Dependent]], connection: Connection
) -> Iterator[tuple[Kind, Dependent]]:
    """The foreign keys by which other rows go or change with a row, in the order in which a database follows them."""
    kinds = list(of.self_and_descendants) if isinstance(of, Mapper) else [of]
    tables: list[Any] = [*reversed(tables_in_order(of)), *of.tables] if isinstance(of, Mapper) else [of]
    every = {(one.kind, one.columns): (each, one) for each in reversed(kinds) for one in dependents(each)}
    for table in dict.fromkeys(tables):
        own = [(each, one) for each, one in every.values() if one.named[0].table is table]
        order = foreign_keys_to(connection, table) if len(own) > 1 else []
        place = {name: at for at, name in reversed([*enumerate(order)])}
        ranked = [((place.get(one.name, len(place)), one.name), each, one) for each, one in own]
        yield from ((each, one) for _, each, one in sorted(ranked, key=itemgetter(0)))
