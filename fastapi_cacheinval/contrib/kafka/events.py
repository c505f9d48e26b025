"""Debezium's events taken apart: with and without a schema around them, as envelopes and as flattened rows."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from fastapi_cacheinval.contrib.kafka.record import PoisonRecord
from fastapi_cacheinval.contrib.kafka.schemas import typed

__all__ = ["RowChange", "change_of"]

Row = Mapping[str, Any]

_OPERATIONS = frozenset("crudtm")


@dataclass(frozen=True, slots=True)
class RowChange:
    """What changed in a table: the rows as far as they are told, the `whole` one among them if there is one."""

    table: str
    rows: tuple[Row, ...] = ()
    whole: Row | None = None
    truncated: bool = False


def change_of(topic: str, key: object, value: object, tables: Container[str]) -> RowChange | None:
    """What an event tells of one of the tables, None where it tells nothing; raises `PoisonRecord`."""
    key, value = _payload(key), _payload(value)
    key_row: Row = cast("Row", key) if isinstance(key, dict) else dict[str, Any]()
    if value is None:
        return _deleted(topic, key_row, tables)
    if not isinstance(value, dict):
        raise PoisonRecord(f"A change event is an object, not {type(value).__name__}.")
    event = cast("Row", value)
    if _is_envelope(event):
        return _enveloped(topic, key_row, event, tables)
    return _flattened(topic, key_row, event, tables)


def _payload(value: object) -> Any:
    """What is inside the schema that JSON converters put around values where `schemas.enable` is on, typed by it."""
    if isinstance(value, dict) and value.keys() == {"schema", "payload"}:
        schema, payload = cast("Row", value)["schema"], cast("Row", value)["payload"]
        if schema is None or (isinstance(schema, dict) and "type" in schema):
            try:
                return typed(payload, schema)
            except Exception as error:
                raise PoisonRecord(f"Its schema does not fit what it holds ({type(error).__name__}).") from error
    return value  # pyright: ignore[reportUnknownVariableType]


def _is_envelope(value: Row) -> bool:
    op = value.get("op")
    return isinstance(op, str) and op in _OPERATIONS and bool({"before", "after", "source"} & value.keys())


def _deleted(topic: str, key: Row, tables: Container[str]) -> RowChange | None:
    """A tombstone: where deletes are not told otherwise, it is all there is of one, and the key all that is left."""
    table = _found(_suffixes(topic), tables)
    if table is None:
        return None
    if not key:
        raise PoisonRecord("A tombstone without a key that is an object tells nothing.")
    return RowChange(table, (key,))


def _enveloped(topic: str, key: Row, value: Row, tables: Container[str]) -> RowChange | None:
    source = value.get("source")
    names = (*_qualified(cast("Row", source)), *_suffixes(topic)) if isinstance(source, dict) else _suffixes(topic)
    table = _found(names, tables)
    op = value["op"]
    if table is None or op == "m":
        return None
    if op == "t":
        return RowChange(table, truncated=True)
    before, after = _row(value.get("before")), _row(value.get("after"))
    if op != "d" and after is None:
        raise PoisonRecord("A change event has no new row.")
    whole = None if after is None else {**key, **after}
    old = None if before is None else {**key, **before}
    rows = tuple(row for row in (old, whole, key) if row)
    if not rows:
        raise PoisonRecord("A deletion tells neither the old row nor the key.")
    return RowChange(table, rows, whole)


def _row(value: object) -> Row | None:
    if value is None or isinstance(value, dict):
        return value  # pyright: ignore[reportUnknownVariableType]
    raise PoisonRecord(f"A row is an object, not {type(value).__name__}.")


def _flattened(topic: str, key: Row, value: Row, tables: Container[str]) -> RowChange | None:
    """What `ExtractNewRecordState` leaves: a row, with what was asked for of the rest under names with `__`."""
    named = value.get("__table", value.get("__source_table"))
    names = (*_named(value, named), *_suffixes(topic)) if isinstance(named, str) else _suffixes(topic)
    table = _found(names, tables)
    if table is None or _is_about_transactions(value):
        return None
    op = value.get("__op")
    if op == "t":
        return RowChange(table, truncated=True)
    row = {**key, **value}
    gone = op == "d" or str(value.get("__deleted")).lower() == "true"
    return RowChange(table, (row, key) if key else (row,), None if gone else row)


def _is_about_transactions(value: Row) -> bool:
    return value.get("status") in ("BEGIN", "END") and {"id", "event_count", "data_collections"} <= value.keys()


def _qualified(source: Row) -> Iterator[str]:
    """The names of a table, the longest first."""
    parts = [source.get(name) for name in ("db", "schema", "table")]
    known = [part for part in parts if isinstance(part, str) and part]
    if isinstance(parts[-1], str) and parts[-1]:
        yield from (".".join(known[first:]) for first in range(len(known)))


def _named(value: Row, table: str) -> Iterator[str]:
    found = {name: value.get(f"__{name}", value.get(f"__source_{name}")) for name in ("db", "schema")}
    return _qualified({**found, "table": table})


def _suffixes(topic: str) -> Iterator[str]:
    """What a topic may name: `server.public.products`, `public.products`, `products`."""
    parts = topic.split(".")
    return (".".join(parts[first:]) for first in range(len(parts)))


def _found(names: Iterator[str] | tuple[str, ...], tables: Container[str]) -> str | None:
    return next((name for name in names if name in tables), None)
