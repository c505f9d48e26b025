"""CloudEvents taken apart, as Debezium's converter and others write them: structured, and binary by header. Pure.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from fastapi_cacheinval.sources import UnreadableEvent

__all__ = ["opened"]

_VERSIONS = ("0.3", "1.0")
_REQUIRED = ("id", "source", "type")
_OURS = "iodebezium"
_OF_A_SOURCE = ("connector", "name", "db", "schema", "table", "collection")


def opened(
    value: object, headers: Iterable[tuple[str, bytes | None]], decode: Callable[[bytes], object]
) -> tuple[Any, Mapping[str, Any] | None]:
    """What is in a CloudEvent, and what its attributes say of it: `op` and `source`, as an envelope of Debezium does.

    Any other value comes back as it is, with None. Raises `UnreadableEvent` for a CloudEvent without data.
    """
    told = {name.lower(): (text or b"").decode("utf-8", "replace") for name, text in headers}
    if "ce_specversion" in told:
        return value, _said({name[3:]: text for name, text in told.items() if name.startswith("ce_")})
    structured = told.get("content-type", "").startswith("application/cloudevents")
    event = _fields(value)
    schema: object = None
    if set(event) == {"schema", "payload"}:
        # A converter has put its schema around the whole of it.
        event, schema = _fields(event["payload"]), _of_data(_fields(event["schema"]))
    if not _is_one(event, sure=structured):
        return cast("Any", value), None
    data: Any = event.get("data")
    if isinstance(encoded := event.get("data_base64"), str):
        try:
            data = decode(base64.b64decode(encoded, validate=True))
        except ValueError:
            raise UnreadableEvent("The data of the CloudEvent is not in base64.") from None
    if not isinstance(data, dict):
        raise UnreadableEvent("The data of the CloudEvent is no JSON object: set data.serializer.type=json.")
    return cast("Any", data if schema is None else {"schema": schema, "payload": data}), _said(event)


def _fields(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _of_data(schema: Mapping[str, Any]) -> object:
    """The schema of the field `data`, in that of an event."""
    fields: object = schema.get("fields")
    named = map(_fields, cast("list[object]", fields if isinstance(fields, list) else []))
    return next((each for each in named if each.get("field") == "data"), None)


def _is_one(value: Mapping[str, Any], *, sure: bool) -> bool:
    """Whether it is a CloudEvent, and not a row of a table that has columns of these names."""
    if value.get("specversion") not in _VERSIONS or not all(isinstance(value.get(name), str) for name in _REQUIRED):
        return False
    return (
        sure
        or isinstance(value.get("data"), dict)
        or isinstance(value.get("data_base64"), str)
        or f"{_OURS}op" in value
    )


def _said(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    source = {name: attributes[_OURS + name] for name in _OF_A_SOURCE if attributes.get(_OURS + name)}
    return {"op": attributes.get(f"{_OURS}op"), "source": source}
