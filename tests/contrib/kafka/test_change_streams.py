"""Change streams of MongoDB, as MongoDB's own source connector writes them in each of its formats, are read.

The examples follow MongoDB's documentation of change events and of the connector.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastapi_cacheinval.contrib.kafka import EVERYTHING, PoisonRecord, Record, debezium

OID = "596e275826f08b2730779e1f"
NAMESPACE = {"db": "shop", "coll": "customers"}
TABLES = {"customers": ["customer:{_id}", "name:{name}", "customers"]}
BEFORE = {"_id": {"$oid": OID}, "name": "Ann", "visits": {"$numberLong": "2"}}
AFTER = {"_id": {"$oid": OID}, "name": "Anne", "visits": {"$numberLong": "3"}, "tags": ["a"]}
ID = f"customer:{OID}"


def event(operation: str, **more: Any) -> dict[str, Any]:
    key = {"documentKey": {"_id": {"$oid": OID}}} if operation in ("insert", "update", "replace", "delete") else {}
    return {"_id": {"_data": "8263"}, "operationType": operation, "clusterTime": {"$timestamp": {"t": 1, "i": 2}},
            "ns": NAMESPACE, **key, **more}  # fmt: skip


def tags_of(value: Any, topic: str = "all", tables: Any = TABLES) -> object:
    found = debezium(tables)(Record(topic, 0, 0, b'{"_id": {"_data": "8263"}}', json.dumps(value).encode()))
    return found if found is None or found is EVERYTHING else set(found)


def as_text(value: dict[str, Any]) -> Any:
    return json.dumps(value)


def with_schema(value: dict[str, Any]) -> Any:
    return {"schema": {"type": "string", "optional": False}, "payload": json.dumps(value)}


def of_fields(value: dict[str, Any]) -> Any:
    """By `output.format.value=schema` documents are text."""
    documents = {"_id", "documentKey", "fullDocument", "fullDocumentBeforeChange", "clusterTime"}
    return {name: json.dumps(each) if name in documents else each for name, each in value.items()}


def as_it_is(value: dict[str, Any]) -> Any:
    return value


FORMS = [as_it_is, as_text, with_schema, of_fields]
READ: dict[str, tuple[dict[str, Any], set[str]]] = {
    "insert": (event("insert", fullDocument=AFTER), {ID, "name:Anne", "customers"}),
    "replace": (event("replace", fullDocument=AFTER), {ID, "name:Anne", "customers"}),
    "update": (
        event("update", fullDocument=AFTER, fullDocumentBeforeChange=BEFORE, updateDescription={"updatedFields": {}}),
        {ID, "name:Anne", "name:Ann", "customers"},
    ),
    "delete": (event("delete"), {ID, "customers"}),
    "delete, with its document": (event("delete", fullDocumentBeforeChange=BEFORE), {ID, "name:Ann", "customers"}),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tables", [TABLES, {"shop.customers": TABLES["customers"]}])
@pytest.mark.parametrize(("value", "tags"), READ.values(), ids=READ)
def test_a_document_is_read(value: dict[str, Any], tags: set[str], tables: Any, form: Any) -> None:
    """Of the collection that the event names, whatever its topic is: old fields, new ones, and the id."""
    assert tags_of(form(value), tables=tables) == tags


@pytest.mark.parametrize("form", FORMS)
def test_an_update_without_its_document_refuses_what_it_does_not_tell(form: Any) -> None:
    """As the connector writes it by default: the id and the collection are purged, the templates with fields refused."""
    with pytest.raises(PoisonRecord, match="has no column name") as refused:
        tags_of(form(event("update", updateDescription={"updatedFields": {"name": "Bob"}})))
    assert set(refused.value.readable.tags) == {ID, "customers"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [event("drop"), event("rename", to={"db": "shop", "coll": "old_customers"})])
def test_a_collection_that_is_gone_is_a_truncated_table(value: dict[str, Any], form: Any) -> None:
    """Everything is purged, or `wide`."""
    assert tags_of(form(value)) is EVERYTHING


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("where", [{"ns": {"db": "shop", "coll": "x"}}, {"ns": {"db": "other", "coll": "x"}}])
def test_a_collection_that_takes_the_name_of_a_mapped_one_is_a_truncated_table(where: Any, form: Any) -> None:
    """Whatever was in the one that it replaces is gone."""
    assert tags_of(form(event("rename", to=NAMESPACE) | where)) is EVERYTHING


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "value",
    [
        {"_id": {"_data": "8263"}, "operationType": "invalidate", "clusterTime": {}},
        event("dropDatabase") | {"ns": {"db": "shop"}},
        event("createIndexes", operationDescription={}),
        event("insert", fullDocument=AFTER) | {"ns": {"db": "shop", "coll": "orders"}},
    ],
)
def test_what_changes_no_document_of_a_mapped_collection_is_nothing(value: dict[str, Any], form: Any) -> None:
    """Events of each dropped collection have come before; other collections are counted as ignored."""
    assert tags_of(form(value)) is None
    assert tags_of(form(value), topic="shop.customers" if "ns" not in value else "all") is None


def test_whole_documents_have_the_text_of_pages() -> None:
    """By `publish.full.document.only` a record is a document in extended JSON, or a simplified one."""
    tables = {"customers": ["customer:{_id}", "at:{at}", "visits:{visits}"]}
    exact = AFTER | {"at": {"$date": "2026-01-02T03:04:05Z"}}
    moments = {"at:2026-01-02%2003:04:05", "at:2026-01-02%2003:04:05+00:00"}
    assert tags_of(exact, "shop.customers", tables) == {ID, "visits:3", *moments}
    deleted = Record("shop.customers", 0, 0, b'{"_id": {"$oid": "%s"}}' % OID.encode())
    assert set(debezium({"customers": tables["customers"][:1]})(deleted) or ()) == {ID}
    with pytest.raises(PoisonRecord):
        debezium(tables)(Record("shop.customers", 0, 0, b'{"_id": {"_data": "8263"}}'))
    simplified = {"_id": OID, "at": "2026-01-02T03:04:05Z", "visits": 3}
    read = debezium(tables)(Record("shop.customers", 0, 0, None, json.dumps(simplified).encode()))
    assert {ID, "visits:3", *moments} <= set(read or ())


@pytest.mark.parametrize(("told", "text"), [(42.0, "42"), (1.5, "1.5"), ("a", "a"), ({"$numberLong": "7"}, "7")])
@pytest.mark.parametrize("form", FORMS)
def test_ids_of_every_type_are_read(told: Any, text: str, form: Any) -> None:
    """A number with a point, text, and what stands in an object of its own."""
    value = event("delete") | {"documentKey": {"_id": told}}
    assert tags_of(form(value), tables={"customers": ["customer:{_id}"]}) == {f"customer:{text}"}


@pytest.mark.parametrize(
    "columns", [{"operationType": "insert"}, {"operationType": "insert", "ns": "a"}, {"ns": NAMESPACE}]
)
def test_a_row_with_such_columns_is_a_row(columns: dict[str, Any]) -> None:
    """A name alone makes no event of a change stream."""
    assert tags_of({"id": 42, "_id": 1, **columns}, "shop.x", {"x": ["x:{id}"]}) == {"x:42"}
