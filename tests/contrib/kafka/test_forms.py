"""Change events in other forms: as CloudEvents, of MongoDB, of tables with odd columns, with keys that nobody can read."""

from __future__ import annotations

import base64
import json
from typing import Any
from uuid import UUID

import pytest

from fastapi_cacheinval.contrib.kafka import PoisonRecord, Record, debezium

TOPIC = "shop.public.products"
MAP = {"products": ["product:{id}", "brand:{brand_id}", "products"]}
OLD, NEW = {"id": 42, "brand_id": 7}, {"id": 42, "brand_id": 8}
BOTH = {"product:42", "brand:7", "brand:8", "products"}
ATTRIBUTES: dict[str, Any] = {
    "id": "name:shop;lsn:29274832;txId:565",
    "source": "/debezium/postgresql/shop",
    "specversion": "1.0",
    "type": "io.debezium.postgresql.datachangeevent",
    "time": "2026-01-13T13:55:39.738Z",
    "datacontenttype": "application/json",
    "iodebeziumop": "u",
    "iodebeziumconnector": "postgresql",
    "iodebeziumname": "shop",
    "iodebeziumtsms": "1578923739738",
    "iodebeziumdb": "shop",
    "iodebeziumschema": "public",
    "iodebeziumtable": "products",
    "iodebeziumlsn": "29274832",
}
WITHOUT = {name: value for name, value in ATTRIBUTES.items() if not name.startswith("iodebezium")}


def tags_of(value: Any, key: Any = None, topic: str = TOPIC, tables: Any = MAP, **options: Any) -> set[str] | None:
    headers = tuple(options.pop("headers", ()))
    data = [
        None if each is None else each if isinstance(each, bytes) else json.dumps(each).encode()
        for each in (key, value)
    ]
    found = debezium(tables, **options)(Record(topic, 0, 0, data[0], data[1], headers))
    return None if found is None else set(found)


# -- CloudEvents --------------------------------------------------------------------------------------

DATA: dict[str, tuple[dict[str, Any], Any, set[str]]] = {
    "an update": (ATTRIBUTES, {"before": OLD, "after": NEW}, BOTH),
    "a snapshot": ({**ATTRIBUTES, "iodebeziumop": "r"}, {"before": None, "after": OLD}, BOTH - {"brand:8"}),
    "a deletion": ({**ATTRIBUTES, "iodebeziumop": "d"}, {"before": OLD, "after": None}, BOTH - {"brand:8"}),
    "with a schema": (ATTRIBUTES, {"schema": {"type": "struct"}, "payload": {"before": OLD, "after": NEW}}, BOTH),
    "extensions off": (WITHOUT, {"before": OLD, "after": NEW}, BOTH),
    "extensions off, a deletion": (WITHOUT, {"before": OLD, "after": None}, BOTH - {"brand:8"}),
    "a flattened row": (ATTRIBUTES, NEW, BOTH - {"brand:7"}),
    "an envelope of its own": (
        WITHOUT,
        {"op": "u", "before": OLD, "after": NEW, "source": {"table": "products"}},
        BOTH,
    ),
}


def structured(attributes: dict[str, Any], data: Any) -> dict[str, Any]:
    return {"value": {**attributes, "data": data}}


def encoded(attributes: dict[str, Any], data: Any) -> dict[str, Any]:
    return {"value": {**attributes, "data_base64": base64.b64encode(json.dumps(data).encode()).decode()}}


def binary(attributes: dict[str, Any], data: Any) -> dict[str, Any]:
    headers = [(f"ce_{name}", str(value).encode()) for name, value in attributes.items()]
    return {"value": data, "headers": [*headers, ("content-type", b"application/json")]}


@pytest.mark.parametrize("mode", [structured, encoded, binary])
@pytest.mark.parametrize(("attributes", "data", "expected"), DATA.values(), ids=DATA)
def test_a_cloudevent_is_opened(mode: Any, attributes: dict[str, Any], data: Any, expected: set[str]) -> None:
    """Its data is the change, and its attributes are the operation and the table, in each mode of the binding."""
    assert tags_of(**mode(attributes, data)) == expected
    if "iodebeziumtable" in attributes:
        assert tags_of(**mode(attributes, data), topic="all") == expected
        other = {**attributes, "iodebeziumtable": "people"}
        assert tags_of(**mode(other, data), topic="all") is None


def test_a_truncated_table_as_a_cloudevent_purges_what_is_wide() -> None:
    """By its operation."""
    event = structured({**ATTRIBUTES, "iodebeziumop": "t"}, {"before": None, "after": None})
    assert tags_of(**event, wide=["products"]) == {"products"}


def test_a_cloudevent_may_have_a_schema_around_all_of_it() -> None:
    """By a converter that knows nothing of CloudEvents: the schema of the data is the one by which it is typed."""
    number = {"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": "0"}}
    row = {"type": "struct", "field": "after", "fields": [{**number, "field": "id"}]}
    schema = {"type": "struct", "fields": [{"type": "string", "field": "id"},
        {"type": "struct", "field": "data", "fields": [row]}]}  # fmt: skip
    value = {**ATTRIBUTES, "data": {"before": None, "after": {"id": "Kg==", "brand_id": 8}}}
    assert tags_of({"schema": schema, "payload": value}) == BOTH - {"brand:7"}
    for broken in ({"type": "struct"}, {"type": "struct", "fields": 5}, None):
        value = {**ATTRIBUTES, "data": {"before": None, "after": {"id": 42, "brand_id": 8}}}
        assert tags_of({"schema": broken, "payload": value}) == BOTH - {"brand:7"}


@pytest.mark.parametrize("data", ["AAECAw==", None, [1]])
def test_a_cloudevent_with_other_data_is_refused(data: Any) -> None:
    """Avro inside JSON, or nothing: it is not taken for a row."""
    with pytest.raises(PoisonRecord, match="CloudEvent"):
        tags_of({**ATTRIBUTES, "data": data})


def test_a_table_of_cloudevents_has_rows() -> None:
    """An event store with columns of these names: their values are text."""
    row = {**{name: WITHOUT[name] for name in ("id", "source", "specversion", "type")}, "data": '{"a": 1}'}
    assert tags_of(row, topic="s.public.store", tables={"store": ["event:{type}"]}) == {f"event:{WITHOUT['type']}"}


# -- columns that are named as parts of an envelope ---------------------------------------------------

ROWS: list[dict[str, Any]] = [
    {"id": 42, "op": "u", "source": "web"},
    {"id": 42, "op": "c", "source": None},
    {"id": 42, "op": "d", "before": "a", "after": "b"},
    {"id": 42, "op": "u", "before": None, "after": None},
    {"id": 42, "op": "r", "source": {"scale": 0, "value": "Kg=="}},
    {"id": 42, "source": "web", "status": "BEGIN"},
    {"id": 42, "schema": "a", "payload": "b"},
    {"id": 42, "ts_ms": 5},
]


@pytest.mark.parametrize("row", ROWS, ids=repr)
@pytest.mark.parametrize("envelope", [False, True])
def test_a_tables_own_columns_are_columns(row: dict[str, Any], envelope: bool) -> None:
    """Flattened or in an envelope, whatever they are named."""
    source = {"connector": "mysql", "db": "shop", "table": "products"}
    value = {"op": "c", "before": None, "after": row, "source": source} if envelope else row
    named = [f"{name}:{{{name}}}" for name in row if isinstance(row[name], str)]
    expected = {"product:42", *(f"{name}:{row[name]}" for name in row if isinstance(row[name], str))}
    assert tags_of(value, tables={"products": ["product:{id}", *named]}) == expected


# -- keys and decoders --------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [b"{", b"\xff", b"\0\0\0\0\x01x", b"42", b'"abc"', b"[1]", b"[" * 100_000])
def test_a_key_that_nobody_can_read_costs_nothing_where_the_value_tells_all(key: bytes) -> None:
    """A converter of another kind for keys: the value is read."""
    source = {"connector": "mysql", "table": "products"}
    assert tags_of({"op": "u", "before": OLD, "after": NEW, "source": source}, key) == BOTH
    assert tags_of({"op": "d", "before": OLD, "after": None, "source": source}, key) == BOTH - {"brand:8"}
    assert tags_of(NEW, key) == BOTH - {"brand:7"}


@pytest.mark.parametrize("value", [None, {"op": "d", "before": None, "after": None, "source": {"table": "products"}}])
def test_a_key_that_nobody_can_read_is_told_where_it_is_all_there_is(value: Any) -> None:
    """The error is the key's, and says which half it is of."""
    with pytest.raises(PoisonRecord, match="Its key cannot be decoded"):
        tags_of(value, b"{")
    with pytest.raises(PoisonRecord, match="schema registry: give debezium"):
        tags_of(value, b"\0\0\0\0\x01x")


def test_a_decoder_is_told_which_half_it_has() -> None:
    """One that takes two arguments is given "key" or "value"; one that takes one is not, whatever its defaults are."""
    told: list[str] = []

    def both(data: bytes, half: str) -> Any:
        told.append(half)
        return json.loads(data) if half == "value" else {"id": int.from_bytes(data, "big")}

    class Registry:
        def __call__(self, data: bytes, context: object = None) -> Any:
            assert context is None
            return json.loads(data)

    assert tags_of(NEW, b"\x2a", decode=both) == BOTH - {"brand:7"}
    assert told == ["key", "value"]
    assert tags_of(None, b"\x2a", decode=both) == {"product:42", "products"}
    for one in (Registry(), json.loads, lambda data: dict(json.loads(data))):
        assert tags_of(NEW, {"id": 42}, decode=one) == BOTH - {"brand:7"}


def test_what_waiting_cures_is_raised_for_a_key_too() -> None:
    """A registry that is away: the record is tried again."""

    def away(data: bytes, half: str) -> Any:
        if half == "key":
            raise TimeoutError("the registry is away")
        return json.loads(data)

    with pytest.raises(TimeoutError):
        tags_of(NEW, {"id": 42}, decode=away)


@pytest.mark.parametrize("key", [{"id": 42}, {"schema": {"type": "struct", "fields": []}, "payload": {"id": 42}}])
@pytest.mark.parametrize("schema", [False, True])
def test_converters_may_be_mixed(key: Any, schema: bool) -> None:
    """A key with a schema and a value without one, and the other way round."""
    value: Any = {"op": "u", "before": OLD, "after": NEW, "source": {"table": "products"}}
    assert tags_of({"schema": {"type": "struct"}, "payload": value} if schema else value, key) == BOTH


# -- MongoDB ------------------------------------------------------------------------------------------

MONGO = {"connector": "mongodb", "db": "shop", "rs": "rs0", "collection": "customers"}
OID = "596e275826f08b2730779e1f"
DOCUMENT = json.dumps(
    {"_id": {"$oid": OID}, "name": "Anne", "visits": {"$numberLong": "3"}, "paid": {"$numberDecimal": "30.50"},
     "seen": {"$date": 1_767_323_045_000}, "ref": {"$binary": {"base64": "CjCKQZDCQXqUtzUqdVrtqg==", "subType": "04"}},
     "tags": ["a"]}
)  # fmt: skip
NAMES = ["customer:{_id}", "name:{name}", "visits:{visits}", "paid:{paid}", "customers"]
READ = {f"customer:{OID}", "name:Anne", "visits:3", "paid:30.5", "customers"}


def mongo(op: str, before: str | None = None, after: str | None = None, **more: Any) -> dict[str, Any]:
    return {"op": op, "before": before, "after": after, "source": MONGO, "ts_ms": 1, **more}


@pytest.mark.parametrize("schema", [False, True])
@pytest.mark.parametrize("tables", [{"customers": NAMES}, {"shop.customers": NAMES}])
@pytest.mark.parametrize("value", [mongo("c", None, DOCUMENT), mongo("r", None, DOCUMENT), mongo("d", DOCUMENT)])
def test_a_document_is_read(value: Any, tables: Any, schema: bool) -> None:
    """Created, copied or deleted with a pre-image: its fields are values of MongoDB's extended JSON."""
    text = {"type": "string", "name": "io.debezium.data.Json"}
    fields = [{**text, "field": "before"}, {**text, "field": "after"}]
    told = {"schema": {"type": "struct", "fields": fields}, "payload": value} if schema else value
    assert tags_of(told, topic="x", tables=tables) == READ


def test_the_fields_of_a_document_have_the_text_of_pages() -> None:
    """A moment with and without a time zone, bytes as hexadecimal digits and as a UUID; a field that is not there is none."""
    names = ["seen:{seen}", "ref:{ref}", "none:{nothing}"]
    moment, ref = "2026-01-02%2003:04:05", UUID("0a308a41-90c2-417a-94b7-352a755aedaa")
    assert tags_of(mongo("c", None, DOCUMENT), topic="x", tables={"customers": names}) == {
        f"seen:{moment}", f"seen:{moment}+00:00", f"ref:{ref}", f"ref:{ref.hex}"
    }  # fmt: skip


IDS: list[tuple[str, str]] = [
    (f'{{"$oid": "{OID}"}}', OID),
    ("1004", "1004"),
    ('{"$numberLong": "1004"}', "1004"),
    ('"abc"', "abc"),
]


@pytest.mark.parametrize(("told", "text"), IDS)
@pytest.mark.parametrize("value", [None, mongo("d")])
def test_a_deletion_tells_the_id_of_a_document(value: Any, told: str, text: str) -> None:
    """By the key, which holds it in extended JSON, in a tombstone as well."""
    found = tags_of(value, {"id": told}, topic="rs.shop.customers", tables={"customers": NAMES})
    assert found == {f"customer:{text}", "customers"}


def test_an_update_without_its_document_refuses_what_it_does_not_tell() -> None:
    """With `capture.mode` other than a full one: the id and the collection are purged, the templates with fields refused."""
    value = mongo("u", updateDescription={"updatedFields": '{"name": "Bob"}', "removedFields": None})
    with pytest.raises(PoisonRecord, match="has no column name") as refused:
        tags_of(value, {"id": f'{{"$oid": "{OID}"}}'}, topic="x", tables={"customers": NAMES})
    assert set(refused.value.readable.tags) == {f"customer:{OID}", "customers"}


@pytest.mark.parametrize("after", ["{", "[1]", "5", 5])
def test_a_document_that_is_none_is_refused(after: Any) -> None:
    """No JSON, or JSON that is no object."""
    with pytest.raises(PoisonRecord):
        tags_of(mongo("c", None, after), topic="x", tables={"customers": ["customer:{_id}", "name:{missing}{_id}"]})


def test_a_field_that_is_a_list_refuses_its_template_and_no_other() -> None:
    """As a column does."""
    with pytest.raises(PoisonRecord, match=r"customers\.tags") as refused:
        tags_of(mongo("c", None, DOCUMENT), topic="x", tables={"customers": ["customers", "tag:{tags}"]})
    assert refused.value.readable.tags == ("customers",)
