"""Events of tables that nothing maps are counted and said; a deletion that names no table is not passed over."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.kafka import PoisonRecord, Record, debezium
from tests.contrib.kafka.broker import Kafka
from tests.contrib.kafka.sources import consumed, done, heard
from tests.helpers.fleet import eventually

pytestmark = pytest.mark.anyio

MAP = {"products": ["product:{id}", "products"]}
PHYSICAL = "__dbz__physicalTableIdentifier"


def record(topic: str, value: Any = None, key: Any = None) -> Record:
    data = [
        None if each is None else each if isinstance(each, bytes) else json.dumps(each).encode()
        for each in (key, value)
    ]
    return Record(topic, 0, 0, data[0], data[1])


def change(table: str, op: str = "c", **row: Any) -> dict[str, Any]:
    source = {"connector": "postgresql", "db": "shop", "schema": "public", "table": table}
    return {"op": op, "source": source, "before": row if op == "d" else None, "after": None if op == "d" else row}


# -- tombstones ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", ["all", "shop.all", "shop.public.products_all_shards", "shop.public.people"])
@pytest.mark.parametrize("key", [{"id": 42}, {"schema": {"type": "struct"}, "payload": {"id": 42}}, b"\xff", 42, [1]])
def test_a_tombstone_that_names_no_table_is_refused(topic: str, key: Any) -> None:
    """Nobody knows whether it is of a table that is mapped: it cannot be read, and `wide` is purged in its place."""
    with pytest.raises(PoisonRecord, match=r"names no table|cannot be decoded"):
        debezium(MAP)(record(topic, None, key))


@pytest.mark.parametrize("topic", ["all", "shop.public.products_all_shards"])
def test_a_tombstone_on_a_topic_where_mapped_tables_were_met_is_refused(topic: str) -> None:
    """Also where events of others came there before."""
    read = debezium(MAP)
    assert read(record(topic, change("people", id=1))) is None
    assert set(read(record(topic, change("products", id=42))) or ()) == {"product:42", "products"}
    with pytest.raises(PoisonRecord, match="names no table"):
        read(record(topic, None, {"id": 42}))


@pytest.mark.parametrize("first", [change("people", "d", id=1), {"id": 1}])
def test_a_tombstone_of_another_table_changes_nothing(first: Any) -> None:
    """It follows a deletion of its own, or rows of that topic: these have told whose topic it is."""
    read = debezium(MAP)
    assert read(record("shop.public.people", first)) is None
    assert read(record("shop.public.people", None, {"id": 1})) is None
    assert sum(read.ignored.values()) == 2


def test_a_key_may_name_the_table_of_a_tombstone() -> None:
    """`ByLogicalTableRouter` adds a field to the keys of what it sends to another topic."""
    read = debezium(MAP)
    key = {"id": 42, PHYSICAL: "shop.public.products"}
    assert set(read(record("all", None, key)) or ()) == {"product:42", "products"}
    assert read(record("all", None, {"id": 42, PHYSICAL: "shop.public.people"})) is None
    row = {"id": 7}
    assert set(read(record("all", row, {**row, PHYSICAL: "shop.public.products"})) or ()) == {"product:7", "products"}


async def test_wide_tags_are_purged_in_place_of_such_a_tombstone(broker: Kafka) -> None:
    """By default; the record is counted as refused, and not as done."""
    cache = HTTPCache()
    receipts = heard(cache)
    async with consumed(broker, cache, tags=debezium(MAP), wide=["products"]) as source:
        broker.send(None, key=b'{"id": 42}')
        await eventually(lambda: source.state().refused == 1, "the refusal")
        await eventually(lambda: receipts, "the purge")
        assert source.state().done == 0
    assert [receipt.tags for receipt in receipts] == [("products",)]


# -- tables that nothing maps -------------------------------------------------------------------------


MISSES: dict[str, tuple[str, str, str]] = {
    "another case": ("PRODUCTS", "shop.public.PRODUCTS", "letter by letter.*'products'"),
    "a partition": ("products_2026_01", "shop.public.products_2026_01", "publish_via_partition_root"),
    "a typo": ("product", "shop.public.product", "Is it 'products'"),
    "something else": ("people", "shop.public.people", "It maps 'products'"),
}


@pytest.mark.parametrize(("table", "name", "hint"), MISSES.values(), ids=MISSES)
def test_a_table_that_nothing_maps_is_said_once_and_counted(
    table: str, name: str, hint: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With its full name, the names that are mapped, and what may be wrong."""
    read = debezium(MAP)
    for number in range(3):
        assert read(record(f"shop.public.{table}", change(table, id=number))) is None
    read(record("shop.public.products", change("products", id=1)))
    assert read.ignored == {name: 3}
    assert (read.explain().seen, read.explain().ignored) == ({"products": 1}, {name: 3})
    (said,) = [each.getMessage() for each in caplog.records]
    assert name in said
    assert re.search(hint, said)


def test_a_flattened_row_that_names_no_table_is_ignored_by_its_topic(caplog: pytest.LogCaptureFixture) -> None:
    """A mapping that never matches is not silent."""
    read = debezium(MAP)
    assert read(record("all", {"id": 1})) is None
    assert read.ignored == {"all": 1}
    assert "'all'" in caplog.text


@pytest.mark.parametrize(
    "value",
    [
        {"ts_ms": 1},
        {"status": "END", "id": "571", "event_count": 1, "data_collections": []},
        {"source": {"table": "x"}, "databaseName": "shop", "ddl": "DROP TABLE x", "tableChanges": []},
        {"op": "m", "source": {"connector": "postgresql"}, "message": {"prefix": "p"}},
    ],
)
def test_what_is_no_change_of_data_is_not_counted(value: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody maps heartbeats."""
    read = debezium(MAP)
    assert read(record("shop.public.products", value)) is None
    assert (read.ignored, caplog.records) == ({}, [])


def test_names_without_end_are_counted_together(caplog: pytest.LogCaptureFixture) -> None:
    """A table a day for years: neither memory nor log grows with them."""
    read = debezium(MAP)
    for number in range(2_000):
        read(record(f"s.public.t{number}", change(f"t{number}", id=1)))
    assert len(read.ignored) == 1_001
    assert sum(read.ignored.values()) == 2_000
    assert len(caplog.records) == 1_000


async def test_the_state_of_a_source_says_what_it_ignores(broker: Kafka) -> None:
    """By table, beside the counts of what was done."""
    async with consumed(broker, tags=debezium(MAP)) as source:
        broker.send(json.dumps(change("PRODUCTS", id=1)))
        state = await done(source, 1)
        assert state.ignored == {"shop.public.PRODUCTS": 1}
    async with consumed(broker, config=broker.config("other"), tags=lambda record: []) as source:
        assert source.state().ignored == {}
