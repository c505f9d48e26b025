"""A replica's summary as bytes (format 1): a msgpack map of its fields by name.

A later release may add fields, which an earlier one passes over, and an earlier one leaves some out, which are 0 or
empty then. Anything may stand in Redis: what no release can have written is no summary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, fields
from functools import partial
from typing import Any, TypeVar

import msgpack

from fastapi_cacheinval.core.shadowing import ShadowStatistics
from fastapi_cacheinval.core.statistics import RouteStatistics, SourceState, Statistics
from fastapi_cacheinval.core.summary import MOST_NAMES, MOST_ROUTES, AppliedPurge, ReplicaSummary, shortened

__all__ = ["MOST_BYTES", "decode_summary", "encode_summary"]

MOST_BYTES = 16_384
"""Of one summary; it has a tenth of that as a rule."""

_FORMAT = 1
_MOST_ITEMS = 256
_Made = TypeVar("_Made")


def encode_summary(summary: ReplicaSummary) -> bytes:
    """The summary in at most `MOST_BYTES`: with fewer names where they are long."""
    names, routes = MOST_NAMES, MOST_ROUTES
    while True:
        packed: bytes = msgpack.packb(
            {"format": _FORMAT, **asdict(shortened(summary, names, routes))},
            use_bin_type=True,
            unicode_errors="replace",
        )
        if len(packed) <= MOST_BYTES or not names:
            return packed
        names, routes = names // 2, routes // 2


def decode_summary(data: bytes) -> ReplicaSummary | None:
    """What `encode_summary` gave; None for anything that it cannot have given."""
    if len(data) > MOST_BYTES:
        return None
    try:
        found: Any = msgpack.unpackb(
            data, raw=False, max_array_len=_MOST_ITEMS, max_map_len=_MOST_ITEMS, max_ext_len=0, max_bin_len=0
        )
        if _map(found).get("format") != _FORMAT:
            return None
        return _built(ReplicaSummary, found)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
        return None


def _built(kind: type[_Made], found: Any) -> _Made:
    """A value of a dataclass from its fields by name; raises `ValueError` or `TypeError` for what is none."""
    given = _map(found)
    values: dict[str, Any] = {}
    for field in fields(kind):  # type: ignore[arg-type]  # only dataclasses are given
        read, empty = _READERS[str(field.type)]
        values[field.name] = read(given[field.name]) if field.name in given else empty()
    return kind(**values)


def _exactly(kind: type[_Made]) -> Callable[[Any], _Made]:
    def read(value: Any) -> _Made:
        if type(value) is not kind:
            raise TypeError(f"{value!r} is no {kind.__name__}")
        return value

    return read


_map: Callable[[Any], dict[Any, Any]] = _exactly(dict)
_list: Callable[[Any], list[Any]] = _exactly(list)


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise TypeError(f"{value!r} is no finite number")
    return float(value)


def _optional(read: Callable[[Any], _Made]) -> Callable[[Any], _Made | None]:
    return lambda value: None if value is None else read(value)


def _by_name(read: Callable[[Any], _Made]) -> Callable[[Any], dict[str, _Made]]:
    def read_all(value: Any) -> dict[str, _Made]:
        return {_exactly(str)(name): read(each) for name, each in _map(value).items()}

    return read_all


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(_exactly(str), _list(value)))


def _applied(value: Any) -> tuple[AppliedPurge, ...]:
    return tuple(
        AppliedPurge(_exactly(int)(term), _exactly(int)(seq), _optional(_number)(seconds), _exactly(bool)(late))
        for term, seq, seconds, late in _list(value)
    )


# By the annotation of a field: how it is read, and what it is where it is left out.
_READERS: dict[str, tuple[Callable[[Any], Any], Callable[[], Any]]] = {
    "bool": (_exactly(bool), bool),
    "int": (_exactly(int), int),
    "float": (_number, float),
    "str": (_exactly(str), str),
    "int | None": (_optional(_exactly(int)), lambda: None),
    "tuple[str, ...]": (_texts, tuple),
    "tuple[AppliedPurge, ...]": (_applied, tuple),
    "Mapping[str, int]": (_by_name(_exactly(int)), dict),
    "Mapping[str, float]": (_by_name(_number), dict),
    "Mapping[str, RouteStatistics]": (_by_name(partial(_built, RouteStatistics)), dict),
    "Mapping[str, object]": (_by_name(partial(_built, SourceState)), dict),
    "Statistics": (partial(_built, Statistics), partial(_built, Statistics, {})),
    "ShadowStatistics": (partial(_built, ShadowStatistics), ShadowStatistics),
}
