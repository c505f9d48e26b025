"""Debezium's events taken apart: with and without a schema around them, as envelopes and as flattened rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, cast

from fastapi_cacheinval.contrib.kafka.columns import Guessed
from fastapi_cacheinval.contrib.kafka.logical import typed
from fastapi_cacheinval.contrib.kafka.mongodb import document, is_resume_token, key_of, streamed
from fastapi_cacheinval.contrib.kafka.record import PoisonRecord
from fastapi_cacheinval.contrib.kafka.tables import Tables, qualified, suffixes

__all__ = ["Half", "RowChange", "change_of", "payload"]

Row = Mapping[str, Any]

_OPERATIONS = frozenset("crudtm")
_ENVELOPE = frozenset(
    {"before", "after", "source", "op", "ts_ms", "ts_us", "ts_ns", "transaction", "updateDescription"}
)
_SOURCE = frozenset({"connector", "db", "table", "collection"})
# What `ByLogicalTableRouter` adds to the key of what it sends to another topic.
_PHYSICAL = "__dbz__physicalTableIdentifier"


@dataclass(frozen=True, slots=True)
class Half:
    """A record's key or value: what it holds, and whether a schema came with it, by which it was typed.

    `broken` is whether nobody knows what it holds, since it could not be decoded.
    """

    value: Any = None
    described: bool = True
    broken: bool = False

    @property
    def fields(self) -> Row:
        """What the object has; nothing where it is none."""
        value: object = self.value
        return cast("Row", value) if isinstance(value, dict) else {}

    @property
    def row(self) -> Row:
        """Its fields as the columns of a row."""
        return _columns(self.fields, described=self.described)


@dataclass(frozen=True, slots=True)
class RowChange:
    """What changed in a table: the rows as far as they are told, the `whole` one among them if there is one.

    `sparse` is whether a row need not have every column, as a document need not.
    """

    table: str
    rows: tuple[Row, ...] = ()
    whole: Row | None = None
    truncated: bool = False
    sparse: bool = False


def payload(value: object) -> Half:
    """What is inside the schema that JSON converters put around values where `schemas.enable` is on, typed by it."""
    if isinstance(value, dict) and value.keys() == {"schema", "payload"}:
        schema, inner = cast("Row", value)["schema"], cast("Row", value)["payload"]
        if schema is None or (isinstance(schema, dict) and "type" in schema):
            try:
                return Half(typed(inner, schema), schema is not None and "fields" in schema)
            except Exception as error:
                raise PoisonRecord(f"Its schema does not fit what it holds ({type(error).__name__}).") from error
    return Half(value, described=False)


def change_of(topic: str, key: Half, value: Half, tables: Tables, said: Row | None = None) -> RowChange | None:
    """What an event tells of one of the tables, None where it tells nothing; raises `PoisonRecord`.

    `said` is what the attributes of a CloudEvent around it say: `op` and `source`.
    """
    if value.value is None:
        return _deleted(topic, key, tables)
    if (stream := streamed(cast("object", value.value))) is not None:
        value, key = (Half(each, described=False) for each in stream)
    if not isinstance(value.value, dict):
        raise PoisonRecord(f"A change event is an object, not {type(cast('object', value.value)).__name__}.")
    event = value.fields
    if said is not None and not _is_envelope(event):
        event = _completed(event, said)
        value = replace(value, value=event)
    if _is_none(event):
        return None
    if _is_envelope(event):
        return _enveloped(topic, key, value, tables)
    return _flattened(topic, key, value, tables)


def _is_envelope(value: Row) -> bool:
    """Whether it is an envelope, and not a row with columns of these names."""
    op, source = value.get("op"), value.get("source")
    if not isinstance(op, str) or op not in _OPERATIONS:
        return False
    if isinstance(source, dict):
        return not _SOURCE.isdisjoint(cast("Row", source))
    rows = [value[name] for name in ("before", "after") if name in value]
    return value.keys() <= _ENVELOPE and source is None and bool(rows) and all(isinstance(r, dict | None) for r in rows)


def _completed(event: Row, said: Row) -> Row:
    """The data of a CloudEvent with what its attributes say: an envelope, or a row that names its table."""
    if not {"before", "after"} & event.keys():
        return {**{f"__{name}": text for name, text in said["source"].items()}, **event}
    op = said["op"] or ("d" if event.get("after") is None else "u")
    return {**event, "op": op, "source": {"connector": "", **said["source"]}}


def _is_none(event: Row) -> bool:
    """Whether it is no change of data: a heartbeat, a schema change, metadata of a transaction, a logical message."""
    return (
        set(event) == {"ts_ms"}
        or (event.get("op") == "m" and isinstance(event.get("source"), dict))
        or {"databaseName", "ddl"} <= event.keys()
        or (event.get("status") in ("BEGIN", "END") and {"id", "event_count", "data_collections"} <= event.keys())
    )


def _physical(key: Half) -> Iterator[str]:
    told = key.fields.get(_PHYSICAL)
    return suffixes(told) if isinstance(told, str) else iter(())


def _deleted(topic: str, key: Half, tables: Tables) -> RowChange | None:
    """A tombstone: where deletes are not told otherwise, it is all there is of one, and the key all that is left."""
    named, row = tuple(_physical(key)), key.row
    if not named and (key.value is not None or key.broken) and tables.may_be_of(topic):
        raise PoisonRecord(
            f"A tombstone on the topic {topic!r} names no table, and nothing maps that topic: let "
            "ByLogicalTableRouter add its key.field.name, or have deletes told by an event of their own."
        )
    table = tables.find(named, topic)
    if table is None:
        return None
    if not row:
        raise PoisonRecord("A tombstone without a key that is an object tells nothing.")
    # Whose it is nobody says: a document's key is named otherwise.
    return RowChange(table, (row, key_of(key.fields)) if set(row) == {"id"} else (row,))


def _enveloped(topic: str, key: Half, value: Half, tables: Tables) -> RowChange | None:
    event = value.fields
    source: Row = event["source"] if isinstance(event.get("source"), dict) else {}
    # What it has been renamed to, of a collection.
    renamed: Row = event["to"] if isinstance(event.get("to"), dict) else {}
    table = tables.find(chain(qualified(source), qualified(renamed), _physical(key)), topic)
    if table is None:
        return None
    op = event["op"]
    if op == "t":
        return RowChange(table, truncated=True)
    documents = source.get("connector") == "mongodb" or "collection" in source
    key_row = key_of(key.fields) if documents else key.row
    before, after = (
        _row(event.get(name), described=value.described, documents=documents) for name in ("before", "after")
    )
    if op != "d" and after is None and not documents:
        raise PoisonRecord("A change event has no new row.")
    whole = None if op == "d" else {**key_row, **(after or {})}
    rows = tuple(row for row in (None if before is None else {**key_row, **before}, whole, key_row) if row)
    if not rows:
        raise PoisonRecord("A change event tells neither a row nor the key.")
    return RowChange(table, rows, whole, sparse=documents and after is not None)


def _row(value: object, *, described: bool, documents: bool) -> Row | None:
    if value is None:
        return None
    if documents:
        return document(value)
    if isinstance(value, dict):
        return _columns(cast("Row", value), described=described)
    raise PoisonRecord(f"A row is an object, not {type(value).__name__}.")


def _columns(row: Row, *, described: bool) -> Row:
    return row if described else {name: Guessed(value) for name, value in row.items()}


def _flattened(topic: str, key: Half, value: Half, tables: Tables) -> RowChange | None:
    """What `ExtractNewRecordState` leaves: a row, with what was asked for of the rest under names with `__`."""
    event = value.fields
    added = {
        name: event.get(f"__{name}", event.get(f"__source_{name}")) for name in ("db", "schema", "table", "collection")
    }
    table = tables.find(chain(qualified(added), _physical(key)), topic)
    if table is None:
        return None
    op = event.get("__op")
    if op == "t":
        return RowChange(table, truncated=True)
    key_row: Row = {} if is_resume_token(key.fields) else key.row
    row = {**key_row, **value.row}
    gone = op == "d" or str(event.get("__deleted")).lower() == "true"
    return RowChange(table, (row, key_row) if key_row else (row,), None if gone else row)
