"""The types of Kafka Connect and Debezium by their names in a schema, and what each makes of a value in JSON.

Pure. The names are those of Kafka Connect's `data` package and of Debezium's `data`, `geometry`, `time` and `vector`.
"""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

__all__ = [
    "Json",
    "OneOf",
    "Unreadable",
    "decimal_of",
    "decimals_of",
    "naive",
    "stands_for_unstored",
    "times_of",
    "typed",
]

# Debezium writes it in place of a large value that it leaves out; of bytes in the form of `binary.handling.mode`.
_UNSTORED = "__debezium_unavailable_value"
_AS_BASE64, _AS_HEX = base64.b64encode(_UNSTORED.encode()).decode(), _UNSTORED.encode().hex()

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # columns without a time zone are meant
_DAY = timedelta(days=1)
# Of a second.
_UNITS = (1_000, 1_000_000, 1_000_000_000)
# Of PostgreSQL's `bit varying` without a length.
_NO_LENGTH = 2**31 - 1
_INTERVAL = re.compile(r"P(-?\d+)Y(-?\d+)M(-?\d+)DT(-?\d+)H(-?\d+)M(-?\d+(?:\.\d+)?)S")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A column's value that no tag can be made of. `reason` is a predicate, such as "is a list"."""

    reason: str


@dataclass(frozen=True, slots=True)
class OneOf:
    """A column's value that may be any of these: nobody knows which of them a page was tagged with."""

    values: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Json:
    """A JSON document, as text."""

    text: str


def stands_for_unstored(value: Any) -> bool:
    """Whether a value of any type, as Debezium has written it, stands for a large one that it has left out."""
    if isinstance(value, str):
        # As it is, or as JSON.
        text = value.strip('" ')
        return text in (_UNSTORED, _AS_BASE64, _AS_BASE64.rstrip("=")) or (
            len(text) == len(_AS_HEX) and text.lower() == _AS_HEX
        )
    if isinstance(value, bytes | bytearray):
        return value == _UNSTORED.encode()
    if isinstance(value, list):
        return _UNSTORED in cast("list[object]", value)
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return fields.keys() == {"scale", "value"} and stands_for_unstored(fields["value"])
    return False


_Reader = Callable[[Any, Mapping[str, Any]], Any]


def _bytes(value: Any) -> bytes:
    # A decoder of another format than JSON gives them as they are.
    return value if isinstance(value, bytes) else base64.b64decode(value, validate=True)


def decimal_of(value: Any, scale: int) -> Decimal:
    """The number that bytes, or base64 of them, hold in two's complement, with so many digits after the point."""
    if isinstance(value, Decimal | int | float):
        # `decimal.format` of the JSON converter is NUMERIC, or a decoder has read it.
        return Decimal(str(value))
    return Decimal(f"{int.from_bytes(_bytes(value), 'big', signed=True)}E{-scale}")


def decimals_of(data: bytes, scales: range) -> Iterator[Decimal]:
    """The decimals that are written as these bytes, one for each scale; none where a decimal has fewer bytes."""
    number = int.from_bytes(data, "big", signed=True)
    if len(data) == 1 or not -(1 << (8 * len(data) - 9)) <= number < 1 << (8 * len(data) - 9):
        yield from (Decimal(f"{number}E{-scale}") for scale in scales)


def naive(value: datetime) -> datetime:
    """A moment as a column without a time zone holds it."""
    return value.replace(tzinfo=None)


def _since_epoch(units: int) -> Callable[[int], timedelta]:
    return lambda value: timedelta(microseconds=value * 1_000_000 // units)


def _date(value: Any, _: Mapping[str, Any]) -> Any:
    return value if isinstance(value, date) else _EPOCH.date() + timedelta(days=value)


def _moment(units: int) -> _Reader:
    since = _since_epoch(units)
    return lambda value, _: value if isinstance(value, datetime) else _EPOCH + since(value)


def _time(units: int) -> _Reader:
    since = _since_epoch(units)

    def read(value: Any, _: Mapping[str, Any]) -> Any:
        if isinstance(value, time):
            return value
        spent = since(value)
        if not timedelta() <= spent < _DAY:
            return Unreadable("is a time that is not within one day")
        return (_EPOCH + spent).time()

    return read


def _duration(units: int) -> _Reader:
    since = _since_epoch(units)
    return lambda value, _: since(value)


def times_of(number: int) -> Iterator[date | datetime | time | timedelta]:
    """The dates, moments without a time zone, times of a day and intervals that are written as a number."""
    for read in (_date, *map(_moment, _UNITS), *map(_time, _UNITS), _duration(1_000_000)):
        with contextlib.suppress(OverflowError):
            found = read(number, {})
            if not isinstance(found, Unreadable):
                yield found


def _small(value: int, _: Mapping[str, Any]) -> OneOf | int:
    """MySQL and Oracle have no type of their own for what is true or false."""
    return OneOf((value, bool(value))) if value in (0, 1) else value


def _zoned(value: Any, _: Mapping[str, Any]) -> OneOf:
    """Drivers read a `TIMESTAMP` of MySQL without its time zone."""
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    try:
        return OneOf((moment, naive(moment.astimezone(UTC))))
    except OverflowError:
        # Within a day of the first or the last moment that there is.
        return OneOf((moment,))


def _interval(value: str, _: Mapping[str, Any]) -> timedelta | Unreadable:
    found = _INTERVAL.fullmatch(value)
    if found is None or int(found[1]) or int(found[2]):
        return Unreadable("is an interval with months, which have no fixed length")
    return timedelta(
        days=int(found[3]), hours=int(found[4]), minutes=int(found[5]), microseconds=int(Decimal(found[6]) * 1_000_000)
    )


def _bits(value: Any, schema: Mapping[str, Any]) -> OneOf:
    """MySQL's drivers make a number of a bit string, PostgreSQL's its digits."""
    number = int.from_bytes(_bytes(value), "little")
    parameters: Mapping[str, Any] = schema.get("parameters") or {}
    length = int(parameters.get("length", _NO_LENGTH))
    return OneOf((number, f"{number:b}".zfill(0 if length >= _NO_LENGTH else length)))


def _uuid(value: Any, _: Mapping[str, Any]) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)


def _refused(reason: str) -> _Reader:
    def read(_value: Any, _schema: Mapping[str, Any]) -> Unreadable:
        return Unreadable(reason)

    return read


def _without_z(read: Callable[[str], Any]) -> _Reader:
    # `time.precision.mode=isostring` writes columns without a time zone with one.
    return lambda value, _: read(value.removesuffix("Z"))


_CONNECT, _DATA, _TIME = "org.apache.kafka.connect.data", "io.debezium.data", "io.debezium.time"
_SHAPE, _VECTOR = _refused("is a geometry"), _refused("is a vector")

# The numbers are how many units a second has.
_BY_NAME: dict[str, _Reader] = {
    f"{_CONNECT}.Decimal": lambda value, schema: decimal_of(value, int(schema["parameters"]["scale"])),
    f"{_CONNECT}.Date": _date,
    f"{_CONNECT}.Time": _time(1_000),
    f"{_CONNECT}.Timestamp": _moment(1_000),
    f"{_TIME}.Date": _date,
    f"{_TIME}.Time": _time(1_000),
    f"{_TIME}.MicroTime": _time(1_000_000),
    f"{_TIME}.NanoTime": _time(1_000_000_000),
    f"{_TIME}.ZonedTime": lambda value, _: time.fromisoformat(value),
    f"{_TIME}.Timestamp": _moment(1_000),
    f"{_TIME}.MicroTimestamp": _moment(1_000_000),
    f"{_TIME}.NanoTimestamp": _moment(1_000_000_000),
    f"{_TIME}.ZonedTimestamp": _zoned,
    f"{_TIME}.IsoDate": _without_z(date.fromisoformat),
    f"{_TIME}.IsoTime": _without_z(time.fromisoformat),
    f"{_TIME}.IsoTimestamp": _without_z(datetime.fromisoformat),
    f"{_TIME}.Year": lambda value, _: int(value),
    f"{_TIME}.MicroDuration": _duration(1_000_000),
    f"{_TIME}.NanoDuration": _duration(1_000_000_000),
    f"{_TIME}.Interval": _interval,
    f"{_DATA}.VariableScaleDecimal": lambda value, _: decimal_of(value["value"], value["scale"]),
    f"{_DATA}.Uuid": _uuid,
    f"{_DATA}.Bits": _bits,
    f"{_DATA}.Json": lambda value, _: Json(value),
    f"{_DATA}.Enum": lambda value, _: str(value),
    f"{_DATA}.EnumSet": _refused("is a set of words"),
    f"{_DATA}.Xml": lambda value, _: str(value),
    f"{_DATA}.Ltree": lambda value, _: str(value),
    f"{_DATA}.TsVector": _refused("is a vector of words"),
    f"{_DATA}.geometry.Geometry": _SHAPE,
    f"{_DATA}.geometry.Geography": _SHAPE,
    f"{_DATA}.geometry.Point": _SHAPE,
    f"{_DATA}.DoubleVector": _VECTOR,
    f"{_DATA}.FloatVector": _VECTOR,
    f"{_DATA}.SparseDoubleVector": _VECTOR,
    f"{_DATA}.SparseVector": _VECTOR,
}
_BY_KIND: dict[str, _Reader] = {
    "bytes": lambda value, _: _bytes(value),
    "double": lambda value, _: float(value),
    "float": lambda value, _: float(value),
    "int8": _small,
    "int16": _small,
}
_PACKAGES = (f"{_CONNECT}.", f"{_DATA}.", f"{_TIME}.")


def typed(value: Any, schema: Any) -> Any:
    """A value with all that is in it, as its schema says: a dict for a struct, `Unreadable` for what does not fit."""
    if value is None or not isinstance(schema, Mapping):
        return value
    known = cast("Mapping[str, Any]", schema)
    name, kind = str(known.get("name")), str(known.get("type"))
    read = _BY_NAME.get(name) or (None if name.startswith(_PACKAGES) else _BY_KIND.get(kind))
    # A plain struct is a row: its columns may be left out, and not the row.
    if (read is not None or kind != "struct") and stands_for_unstored(value):
        return _UNSTORED
    if read is not None:
        try:
            return read(value, known)
        except Exception:  # noqa: BLE001  # whatever a value of another type makes the reader raise
            return Unreadable(f"does not fit its type, {name if name in _BY_NAME else kind}")
    if kind != "struct" and name.startswith(_PACKAGES):
        return Unreadable("has a type that is newer than this package")
    if kind == "struct" and isinstance(value, dict):
        fields = {each.get("field"): each for each in cast("Iterable[Any]", known.get("fields") or ())}
        row = cast("dict[str, Any]", value)
        return {name: typed(inner, fields.get(name)) for name, inner in row.items()}
    return value
