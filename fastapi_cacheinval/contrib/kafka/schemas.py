"""Values as Debezium's schemas describe them: a decimal that came as bytes, a date that came as a number of days.

Pure. The names of types are those of Kafka Connect and of Debezium.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, cast

__all__ = ["typed"]

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # columns without a time zone are meant


def _bytes(value: Any) -> bytes:
    return base64.b64decode(value, validate=True)


def _decimal(value: str, scale: int) -> Decimal:
    return Decimal(f"{int.from_bytes(_bytes(value), 'big', signed=True)}E{-scale}")


def _moment(units: int) -> Callable[[int], datetime]:
    return lambda value: _EPOCH + timedelta(microseconds=value * 1_000_000 // units)


def _time(units: int) -> Callable[[int], time]:
    return lambda value: _moment(units)(value).time()


def _date(value: int) -> date:
    return _EPOCH.date() + timedelta(days=value)


# By the name of the type; the numbers are how many units a second has.
_BY_NAME: dict[str, Callable[[Any], Any]] = {
    "io.debezium.data.VariableScaleDecimal": lambda value: _decimal(value["value"], value["scale"]),
    "io.debezium.time.Date": _date,
    "org.apache.kafka.connect.data.Date": _date,
    "io.debezium.time.Timestamp": _moment(1_000),
    "io.debezium.time.MicroTimestamp": _moment(1_000_000),
    "io.debezium.time.NanoTimestamp": _moment(1_000_000_000),
    "org.apache.kafka.connect.data.Timestamp": _moment(1_000),
    "io.debezium.time.ZonedTimestamp": datetime.fromisoformat,
    "io.debezium.time.Time": _time(1_000),
    "io.debezium.time.MicroTime": _time(1_000_000),
    "io.debezium.time.NanoTime": _time(1_000_000_000),
    "org.apache.kafka.connect.data.Time": _time(1_000),
    "io.debezium.time.MicroDuration": lambda value: timedelta(microseconds=value),
}
_DECIMAL = "org.apache.kafka.connect.data.Decimal"


def typed(value: Any, schema: Any) -> Any:
    """A value with what is in it, as its schema says; raises what a value does that is not of its schema."""
    if value is None or not isinstance(schema, Mapping):
        return value
    known = cast("Mapping[str, Any]", schema)
    name, kind = str(known.get("name")), known.get("type")
    if name == _DECIMAL:
        return _decimal(value, int(known["parameters"]["scale"]))
    if name in _BY_NAME:
        return _BY_NAME[name](value)
    if kind == "bytes":
        return _bytes(value)
    if kind == "struct" and isinstance(value, dict):
        fields = {each.get("field"): each for each in cast("Iterable[Any]", known.get("fields") or ())}
        row = cast("dict[str, Any]", value)
        return {name: typed(inner, fields.get(name)) for name, inner in row.items()}
    return value
