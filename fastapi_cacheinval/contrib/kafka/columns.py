"""What a column's value may stand for in a tag: known by its schema, or guessed where there is none. Pure."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from fastapi_cacheinval.contrib.kafka.logical import (
    Json,
    OneOf,
    Unreadable,
    decimal_of,
    decimals_of,
    naive,
    stands_for_unstored,
    times_of,
)
from fastapi_cacheinval.contrib.kafka.mongodb import value_of

__all__ = ["Guessed", "is_base64", "is_unstored", "of_bytes", "readings"]

_LIST = Unreadable("is a list or an object")
_TEXT_OR_BYTES = Unreadable(
    "is text that may stand for bytes or a decimal, and comes without a schema: set "
    "value.converter.schemas.enable=true, or decimal.handling.mode=string and binary.handling.mode=hex"
)
_NUMBER_OR_TIME = Unreadable(
    "is a number that may stand for a date or a time, and comes without a schema: set "
    "value.converter.schemas.enable=true or time.precision.mode=isostring"
)

_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
# As SQL Server writes them, and as SQLAlchemy does where the database has no type of its own for them.
_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}|[0-9A-Fa-f]{32}")
_ISO_DATE, _ISO_TIME = r"\d{4}-\d\d-\d\d", r"\d\d:\d\d:\d\d(?:\.\d+)?"
_ISO = re.compile(rf"(?:{_ISO_DATE}|{_ISO_TIME})Z|{_ISO_DATE}T{_ISO_TIME}(?:Z|[+-]\d\d:\d\d)")
_OF_TIME = re.compile(
    r"(?:^|_)(?:at|created|date|datetime|day|expires|modified|time|timestamp|ts|updated)$"
    r"|[a-z](?:At|Date|DateTime|Day|Time|Timestamp)$"
)
# Numbers in such columns count and name things, and are no times.
_OF_NAMES = re.compile(r"(?:^|_)(?:id|no|nr|num|number|pk)$|[a-z](?:Id|No|Number)$")
_ZEROS = re.compile(r"-?\d{1,1000}\.\d{0,1000}0")
# The decimals of a `NUMERIC` that has no more than 38 digits after its point, as SQL Server's, MySQL's and Oracle's.
_GUESSED_SCALES = range(39)
_GUESSED_BYTES = 16
# A `NUMERIC` of PostgreSQL has the most digits after its point; those of Oracle may be before it.
_SCALES = range(-1_000, 16_384)


@dataclass(frozen=True, slots=True)
class Guessed:
    """A column's value that came without a schema."""

    value: object


def is_unstored(value: object) -> bool:
    """Whether it stands for a large value that was not written down again."""
    return stands_for_unstored(value.value if isinstance(value, Guessed) else value)


def is_base64(text: str) -> bool:
    """Whether bytes are written just like this."""
    return bool(text) and _BASE64.fullmatch(text) is not None and _encodes(text)


def _encodes(text: str) -> bool:
    return base64.b64encode(base64.b64decode(text)).decode() == text


def readings(value: object, column: str) -> tuple[object, ...] | Unreadable:
    """The values that a page may have been tagged with for a column's value, most often just one; or why there is none.

    What databases write in another way than Python does has more than one: a UUID in upper case, say.
    """
    if isinstance(value, Guessed):
        return _guessed(value.value, column)
    match value:
        case Unreadable():
            return value
        case OneOf():
            return value.values
        case Json():
            return _of_json(value.text)
        case list() | dict():
            return _LIST
        case str():
            return (value, *_unpadded(value), *_uuids(value), *_decimals(value))
        case bytes() if len(value) == 16:
            # How a UUID is kept where the database has no type of its own for it.
            return (value, UUID(bytes=value))
        case _:
            return (value,)


def _guessed(value: object, column: str) -> tuple[object, ...] | Unreadable:
    match value:
        case {"scale": int(scale), "value": str(digits)} if is_base64(digits) and scale in _SCALES:
            # Nothing else that Debezium writes looks like it.
            return (decimal_of(digits, scale),)
        case bool():
            return (value,)
        case int() if _is_like(_OF_TIME, column):
            return _NUMBER_OR_TIME
        case int() if _is_like(_OF_NAMES, column):
            return (value,)
        case int():
            return (value, *times_of(value), *((bool(value),) if value in (0, 1) else ()))
        case str() if value.endswith("=") and is_base64(value):
            return _TEXT_OR_BYTES
        case str():
            known = (*_unpadded(value), *_uuids(value), *_moments(value), *_decimals(value))
            return (value, *known, *_texts_of_json(value))
        case dict():
            return readings(value_of(value), column)
        case _:
            return readings(value, column)


def _is_like(names: re.Pattern[str], column: str) -> bool:
    return names.search(column) is not None or names.search(column.lower()) is not None


def _of_json(text: str) -> tuple[object, ...] | Unreadable:
    try:
        found: Any = json.loads(text)
    except RecursionError:
        # Only a list or an object is so deep.
        return _LIST
    except ValueError:
        return Unreadable("is JSON that cannot be read")
    return _LIST if isinstance(found, list | dict) else (found,)


def _texts_of_json(text: str) -> tuple[object, ...]:
    """What a text stands for in a column of JSON."""
    found = _of_json(text) if text[:1] == '"' or text in ("true", "false") else ()
    return () if isinstance(found, Unreadable) else found


def of_bytes(text: str) -> Iterator[object]:
    """What a text may stand for that bytes are written like: the bytes, or a decimal of whatever scale."""
    if is_base64(text):
        data = base64.b64decode(text)
        yield data
        if len(data) <= _GUESSED_BYTES:
            yield from decimals_of(data, _GUESSED_SCALES)


def _decimals(text: str) -> tuple[object, ...]:
    """A decimal that is written as text with zeros at its end, which no number in a tag has."""
    return (Decimal(text),) if _ZEROS.fullmatch(text) is not None else ()


def _unpadded(text: str) -> tuple[object, ...]:
    """A `CHAR(n)` without the blanks that fill it up, which some databases write and others do not."""
    return (text.rstrip(" "),) if text.endswith(" ") else ()


def _uuids(text: str) -> tuple[object, ...]:
    if len(text) == 24 and text.endswith("=="):
        # Sixteen bytes, where a connector was told to write base64 as text.
        plain = text.replace("-", "+").replace("_", "/")
        data = base64.b64decode(plain) if is_base64(plain) else b""
        return (data, UUID(bytes=data)) if len(data) == 16 else ()
    if len(text) not in (32, 36) or _UUID.fullmatch(text) is None:
        return ()
    found = UUID(text)
    return () if str(found) == text else (found,)


def _moments(text: str) -> tuple[object, ...]:
    """What ISO 8601 stands for: with a time zone, or of a column without one."""
    if _ISO.fullmatch(text) is None:
        return ()
    try:
        if "T" in text:
            moment = datetime.fromisoformat(text)
            return (moment, naive(moment))
        if ":" in text:
            return (time.fromisoformat(text), time.fromisoformat(text[:-1]))
        return (date.fromisoformat(text[:-1]),)
    except ValueError:
        return ()
