"""Documents of MongoDB as Debezium tells them: text in MongoDB's extended JSON. Pure.

https://www.mongodb.com/docs/manual/reference/mongodb-extended-json/
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

from fastapi_cacheinval.contrib.kafka.logical import Json, OneOf, Unreadable, naive
from fastapi_cacheinval.sources import UnreadableEvent

__all__ = ["document", "key_of"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def document(text: object) -> dict[str, Any]:
    """The fields of a document; raises `UnreadableEvent` for text that is none."""
    found = _extended(text)
    if not isinstance(found, dict):
        raise UnreadableEvent("A document of MongoDB is a JSON object, and this one is not.")
    return {name: _value(value) for name, value in cast("dict[str, Any]", found).items()}


def key_of(key: Mapping[str, Any]) -> dict[str, Any]:
    """The field `_id` of the key of an event, which holds it as text named `id`; nothing for another key."""
    told = key.get("id")
    try:
        return {"_id": _value(_extended(told))} if isinstance(told, str) else {}
    except UnreadableEvent:
        return {}


def _extended(told: object) -> Any:
    text = told.text if isinstance(told, Json) else told
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UnreadableEvent("A document of MongoDB is no JSON that can be read.") from None


def _moment(told: Any) -> OneOf:
    """What drivers read with a time zone or without one."""
    if isinstance(told, str):
        moment = datetime.fromisoformat(told)
    else:
        milliseconds: Any = cast("dict[str, Any]", told)["$numberLong"] if isinstance(told, dict) else told
        moment = _EPOCH + timedelta(milliseconds=int(milliseconds))
    return OneOf((naive(moment.astimezone(UTC)), moment))


def _bytes(told: Any) -> bytes:
    text: Any = cast("dict[str, Any]", told)["base64"] if isinstance(told, dict) else told
    return base64.b64decode(text, validate=True)


_BY_NAME: dict[str, Callable[[Any], Any]] = {
    "$oid": str,
    "$numberInt": int,
    "$numberLong": int,
    "$numberDouble": float,
    "$numberDecimal": Decimal,
    "$date": _moment,
    "$binary": _bytes,
    "$uuid": UUID,
    "$symbol": str,
}


def _value(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    fields = cast("dict[str, Any]", value)
    # The older form of bytes has a second field.
    names = fields.keys() - {"$type"}
    name = next(iter(names), "")
    if len(names) != 1 or name not in _BY_NAME:
        return value  # pyright: ignore[reportUnknownVariableType]
    try:
        return _BY_NAME[name](fields[name])
    except Exception:  # noqa: BLE001  # whatever a value of another shape makes the reader raise
        return Unreadable(f"does not fit its type, {name}")
