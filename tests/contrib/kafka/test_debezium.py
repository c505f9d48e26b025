"""Debezium's change events, in each form that they come in, name the tags of the rows that changed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_cacheinval import ConfigurationError
from fastapi_cacheinval.contrib.kafka import EVERYTHING, PoisonRecord, Record, debezium
from fastapi_cacheinval.core.tags import normalise_tag

TOPIC = "shop.public.products"
TABLES = {"products": ["product:{id}", "brand:{brand_id}", "products"], "public.orders": ["order:{id}"]}
SOURCE = {"connector": "postgresql", "db": "shop", "schema": "public", "table": "products"}
OLD = {"id": 42, "brand_id": 7, "name": "old"}
NEW = {"id": 42, "brand_id": 8, "name": "new"}


def event(op: str = "u", before: Any = None, after: Any = None, **source: Any) -> dict[str, Any]:
    return {"before": before, "after": after, "source": {**SOURCE, **source}, "op": op, "ts_ms": 1}


def record(value: Any, key: Any = None, topic: str = TOPIC) -> Record:
    data = [
        None if each is None else each if isinstance(each, bytes) else json.dumps(each).encode()
        for each in (key, value)
    ]
    return Record(topic, 0, 0, data[0], data[1])


def tags_of(value: Any, key: Any = None, topic: str = TOPIC, tables: Any = TABLES, **options: Any) -> list[str] | None:
    found = debezium(tables, **options)(record(value, key, topic))
    return None if found is None else sorted(found)


BOTH = ["brand:7", "brand:8", "product:42", "products"]
AFTER = ["brand:8", "product:42", "products"]
BEFORE = ["brand:7", "product:42", "products"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (event("c", None, NEW), AFTER),
        (event("r", None, NEW), AFTER),
        (event("u", OLD, NEW), BOTH),
        (event("u", None, NEW), AFTER),
        (event("u", {"id": 42, "brand_id": None, "name": None}, NEW), AFTER),
        (event("u", {"id": 42}, NEW), AFTER),
        (event("d", OLD, None), BEFORE),
        (event("u", OLD, {**NEW, "brand_id": "__debezium_unavailable_value"}), BEFORE),
        (event("u", OLD, {**NEW, "brand_id": None}), BEFORE),
        (event("u", OLD, {**NEW, "brand_id": ""}), ["brand:", *BEFORE]),
    ],
)
@pytest.mark.parametrize("envelope", [False, True])
def test_old_and_new_values_are_purged(value: Any, expected: list[str], envelope: bool) -> None:
    """Insert, snapshot, update, delete: all values that are told, with a schema around and without."""
    assert tags_of({"schema": {"type": "struct"}, "payload": value} if envelope else value) == expected


@pytest.mark.parametrize(
    "key", [{"id": 42}, {"schema": {"type": "struct"}, "payload": {"id": 42}}], ids=["plain", "with a schema"]
)
@pytest.mark.parametrize(
    "value",
    [None, event("d", None, None), {"schema": None, "payload": None}, b"null"],
    ids=["tombstone", "replica identity nothing", "tombstone with a schema", "null"],
)
def test_a_deletion_that_tells_the_key_alone(key: Any, value: Any) -> None:
    """What the key can fill is purged, and what needs no column."""
    assert tags_of(value, key) == ["product:42", "products"]


@pytest.mark.parametrize(
    ("value", "topic", "expected"),
    [
        (NEW, TOPIC, AFTER),
        ({**NEW, "__op": "u", "__deleted": "false"}, TOPIC, AFTER),
        ({**OLD, "__deleted": "true"}, TOPIC, BEFORE),
        ({"id": 42, "__deleted": True}, TOPIC, ["product:42", "products"]),
        ({"id": 42, "brand_id": None, "__op": "d"}, TOPIC, ["product:42", "products"]),
        ({**NEW, "__table": "products"}, "all", AFTER),
        ({"id": 5, "__source_table": "orders", "__source_schema": "public"}, "all", ["order:5"]),
        (NEW, "all", None),
    ],
)
def test_flattened_rows(value: Any, topic: str, expected: list[str] | None) -> None:
    """The table is what the topic ends with, or a field that was added; a deletion is what says so."""
    assert tags_of(value, topic=topic) == expected


@pytest.mark.parametrize(
    ("source", "topic", "expected"),
    [
        ({"table": "orders", "schema": "public"}, "x", ["order:42"]),
        ({"table": "orders", "schema": "archive"}, "x", None),
        ({"table": "orders", "schema": None, "db": "public"}, "x", ["order:42"]),
        ({"table": "other"}, "x", None),
        ({"table": None}, "shop.public.orders", ["order:42"]),
    ],
)
def test_tables_are_named_as_far_as_the_author_wants(source: Any, topic: str, expected: Any) -> None:
    """By table, schema and table, or database, schema and table; what is not named changes nothing."""
    assert tags_of(event("c", None, NEW, **source), topic=topic) == expected


def test_the_longest_name_of_a_table_wins() -> None:
    """A table with a schema of its own is not taken for its namesake."""
    tables = {"products": ["p"], "shop.public.products": ["p:{id}"]}
    assert tags_of(event("c", None, NEW), tables=tables) == ["p:42"]


@pytest.mark.parametrize("value", [event("t"), {"__op": "t", "__table": "products"}])
def test_a_truncated_table_purges_everything_or_what_is_wide(value: Any) -> None:
    """Nobody knows which rows there were."""
    assert debezium(TABLES)(record(value)) is EVERYTHING
    assert tags_of(value, wide=["all-products", "brands"]) == ["all-products", "brands"]


IGNORED: dict[str, tuple[Any, str]] = {
    "heartbeat": ({"ts_ms": 1}, "__debezium-heartbeat.shop"),
    "begin": (
        {"status": "BEGIN", "id": "571", "event_count": None, "data_collections": None, "ts_ms": 1},
        "shop.transaction",
    ),
    "end": (
        {
            "status": "END",
            "id": "571",
            "event_count": 1,
            "data_collections": [{"data_collection": "public.products", "event_count": 1}],
        },
        TOPIC,
    ),
    "schema change": (
        {"source": SOURCE, "databaseName": "shop", "schemaName": "public", "ddl": "DROP TABLE x", "tableChanges": []},
        "shop",
    ),
    "logical message": ({"op": "m", "source": SOURCE, "message": {"prefix": "p", "content": "Yg=="}}, "shop.message"),
    "another table": (event("c", None, NEW, table="people"), "shop.public.people"),
    "tombstone of another table": (None, "shop.public.people"),
}


@pytest.mark.parametrize(("value", "topic"), IGNORED.values(), ids=IGNORED)
def test_what_is_no_change_of_data_is_ignored(value: Any, topic: str) -> None:
    """Heartbeats, transaction metadata, schema changes, messages, other tables; with a schema around them as well."""
    assert tags_of(value, topic=topic) is None
    assert tags_of({"schema": {"type": "struct"}, "payload": value}, topic=topic) is None


POISON: dict[str, tuple[Any, Any]] = {
    "no JSON": (b"{", None),
    "no text": (b"\xff", None),
    "a list": ([1], None),
    "a number": (1, None),
    "no new row": (event("u", OLD, None), None),
    "a row that is none": (event("u", OLD, "new"), None),
    "an old row that is none": (event("u", 3, NEW), None),
    "no such column": (event("c", None, {"id": 1}), None),
    "no such column, flattened": ({"id": 1}, None),
    "a column that is an object": (event("c", None, {**NEW, "id": {"scale": 2}}), None),
    "a tombstone without a key": (None, None),
    "a tombstone with a number": (None, 5),
    "a deletion that tells nothing": (event("d", None, None), None),
    "far too deep": (b"[" * 200_000, None),
}


@pytest.mark.parametrize(("value", "key"), POISON.values(), ids=POISON)
def test_what_cannot_be_read_says_so_without_its_contents(value: Any, key: Any) -> None:
    """PoisonRecord, for the handler of poison; never a guess."""
    with pytest.raises(PoisonRecord) as error:
        debezium(TABLES)(record(value, key))
    assert "new" not in str(error.value).replace("no new row", "")


def test_other_encodings_are_decoded_by_the_users_function() -> None:
    """Avro, say: its deserialiser is given each key and value; what it raises is a poison record."""
    read = debezium(TABLES, decode=lambda data: {b"k": {"id": 42}, b"v": event("u", OLD, NEW)}[data])
    assert sorted(read(record(b"v", b"k")) or ()) == BOTH
    with pytest.raises(PoisonRecord, match="KeyError"):
        read(record(b"?", b"k"))
    with pytest.raises(PoisonRecord, match="digits"):
        debezium(TABLES, decode=lambda _: event("c", None, {**NEW, "id": 10**5000}))(record(b"v"))


BAD: list[Any] = [
    {},
    None,
    ["products"],
    {"": ["products"]},
    {5: ["products"]},
    {"products": []},
    {"products": "product:{id}"},
    {"products": ["product:{id"]},
    {"products": ["product:{}"]},
    {"products": ["product:{id!r}"]},
    {"products": ["product:{id:>5}"]},
    {"products": ["product:{row.id}"]},
    {"products": ["a product"]},
    {"products": [""]},
    {"products": [5]},
    {"products": 5},
    {"products": ["x" * 1025]},
]


@pytest.mark.parametrize("tables", BAD, ids=repr)
def test_a_bad_mapping_is_told_when_it_is_made(tables: Any) -> None:
    """Not at the first record."""
    with pytest.raises(ConfigurationError):
        debezium(tables)


@pytest.mark.parametrize("options", [{"wide": "all"}, {"wide": ["p:{id}"]}, {"wide": [5]}, {"decode": "json"}])
def test_bad_options_are_told_when_it_is_made(options: Any) -> None:
    """`wide` is a list of tags without columns, `decode` a function."""
    with pytest.raises(ConfigurationError):
        debezium(TABLES, **options)


_names = st.sampled_from(
    [
        "op",
        "before",
        "after",
        "source",
        "schema",
        "payload",
        "type",
        "table",
        "db",
        "id",
        "brand_id",
        "status",
        "ts_ms",
        "__op",
        "__table",
        "__deleted",
        "__source_table",
        "event_count",
        "data_collections",
        "specversion",
        "data",
        "data_base64",
        "iodebeziumop",
        "iodebeziumtable",
        "connector",
        "collection",
        "fields",
        "field",
        "name",
        "parameters",
        "scale",
        "value",
        "$oid",
        "$date",
        "$binary",
        "__dbz__physicalTableIdentifier",
    ]
)
_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.sampled_from(
        [
            "u",
            "d",
            "t",
            "c",
            "r",
            "m",
            "BEGIN",
            "END",
            "products",
            "orders",
            "public",
            "true",
            "1.0",
            "mongodb",
            "struct",
            "bytes",
            "Kg==",
            "{}",
            "io.debezium.time.Date",
            "io.debezium.data.Bits",
            "org.apache.kafka.connect.data.Decimal",
            "io.debezium.data.Json",
        ]
    ),
)
_values = st.recursive(
    _leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=8), max_leaves=20
)
_bytes = st.one_of(
    st.none(), st.binary(), _values.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))
)


_headers = st.lists(
    st.tuples(
        st.sampled_from(["ce_specversion", "ce_iodebeziumop", "content-type"]), st.none() | st.binary(max_size=5)
    ),
    max_size=2,
)
_rows_of_any = st.dictionaries(_names, _values, max_size=8)
_schemas = st.fixed_dictionaries({"type": st.sampled_from(["struct", "bytes", "array"])}, optional={"fields": st.lists(_rows_of_any, max_size=3) | _values, "name": _leaves, "parameters": _values})  # fmt: skip
_envelopes = st.fixed_dictionaries(
    {"op": st.sampled_from("crudtm"), "source": _rows_of_any.map(lambda row: {**row, "connector": "mongodb"})},
    optional={"before": _values, "after": _values},
)
_events = st.one_of(
    _bytes,
    st.fixed_dictionaries({"schema": _schemas, "payload": _values | _envelopes}).map(
        lambda value: json.dumps(value).encode("utf-8", "surrogatepass")
    ),
    st.builds(
        lambda row: json.dumps({**row, "specversion": "1.0", "id": "1", "source": "/x", "type": "y"}).encode(
            "utf-8", "surrogatepass"
        ),
        _rows_of_any,
    ),
)


@given(key=_events, value=_events, headers=_headers, topic=st.sampled_from([TOPIC, "shop.public.orders", "", ".", "x"]))
def test_whatever_comes_is_tags_or_nothing_or_unreadable(
    key: bytes | None, value: bytes | None, headers: Any, topic: str
) -> None:
    """No other error for any bytes, and no tag that is empty or no text."""
    try:
        found = debezium(TABLES)(Record(topic, 0, 0, key, value, tuple(headers)))
    except PoisonRecord:
        return
    assert found is None or all(isinstance(tag, str) and tag for tag in found)


_rows = st.fixed_dictionaries({"id": st.integers(), "brand_id": st.text(min_size=1, max_size=5)})


@given(before=st.none() | _rows, after=_rows, envelope=st.booleans())
def test_no_value_of_a_change_is_left_out(before: Any, after: Any, envelope: bool) -> None:
    """Each column that a tag names is there with its old and its new value."""
    value: Any = event("u", before, after)
    found = tags_of({"schema": {"type": "struct"}, "payload": value} if envelope else value)
    expected = {"products"}
    for row in (before, after):
        if row is not None:
            expected |= {f"product:{row['id']}", normalise_tag(f"brand:{row['brand_id']}") or ""}
    assert set(found or ()) == expected
