"""Documents of MongoDB as Debezium and MongoDB's own connector tell them, in MongoDB's extended JSON. Pure.

https://www.mongodb.com/docs/manual/reference/mongodb-extended-json/
https://www.mongodb.com/docs/manual/reference/change-events/
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

__all__ = ["document", "is_resume_token", "key_of", "streamed", "value_of"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Of a change stream, as Debezium names them; a collection that is dropped or renamed is empty afterwards.
_OPERATIONS = {"insert": "c", "update": "u", "replace": "u", "delete": "d", "drop": "t", "rename": "t"}


def document(text: object) -> dict[str, Any]:
    """The fields of a document; raises `UnreadableEvent` for text that is none."""
    found = _extended(text)
    if not isinstance(found, dict):
        raise UnreadableEvent("A document of MongoDB is a JSON object, and this one is not.")
    return {name: value_of(value) for name, value in cast("dict[str, Any]", found).items()}


def key_of(key: Mapping[str, Any]) -> dict[str, Any]:
    """The field `_id` of the key of an event, which holds it as text named `id`; nothing for another key."""
    told = key.get("id")
    try:
        return {"_id": value_of(_extended(told))} if isinstance(told, str) else {}
    except UnreadableEvent:
        return {}


def streamed(value: object) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """An event of a change stream as the value and the key that Debezium makes of it; None for anything else.

    MongoDB's own connector writes it as an object or as text. An event of no document has the operation `m`.
    """
    try:
        found = _extended(value)
    except UnreadableEvent:
        return None
    event = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    operation, namespace = event.get("operationType"), event.get("ns")
    if not isinstance(operation, str) or "_id" not in event:
        return None
    names = cast("dict[str, Any]", namespace) if isinstance(namespace, dict) else {}
    if not (isinstance(names.get("db"), str) or (operation == "invalidate" and "ns" not in event)):
        return None
    source, renamed = _source(names), _source(event.get("to"))
    key = _extended(event.get("documentKey"))
    told = {"id": json.dumps(key["_id"], default=float)} if isinstance(key, dict) and "_id" in key else {}
    before, after = event.get("fullDocumentBeforeChange"), event.get("fullDocument")
    op = _OPERATIONS.get(operation, "m")
    return {"op": op, "source": source, "to": renamed, "before": before, "after": after}, told


def is_resume_token(row: Mapping[str, Any]) -> bool:
    """Whether a key tells a place in a change stream, and no document."""
    told: object = row.get("_id")
    fields = cast("dict[str, Any]", told) if isinstance(told, dict) else {}
    return len(row) == 1 and ("_data" in fields or "copyingData" in fields)


def _source(namespace: object) -> dict[str, Any]:
    names = cast("dict[str, Any]", namespace) if isinstance(namespace, dict) else {}
    return {"connector": "mongodb", "db": names.get("db"), "collection": names.get("coll")}


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


def value_of(value: Any) -> Any:
    """What a value of extended JSON stands for; `Unreadable` for what does not fit its type."""
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
