"""The order in which rows are locked: that in which the app's own write takes them, or two of these wait in a ring.

SQLAlchemy writes the rows of a flush by their keys, and those of a list in its order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, Text, case, cast

from fastapi_cacheinval.contrib.sqlalchemy.keys import Identity, matching

__all__ = ["by_key", "is_by_key", "order_of", "parts", "turns"]

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
