"""Records that cannot be read are reported, handed on, and passed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.kafka import PoisonRecord, Record
from tests.contrib.kafka.broker import Kafka
from tests.contrib.kafka.sources import committed, consumed, done, heard
from tests.helpers.fleet import eventually

pytestmark = pytest.mark.anyio


def by_json(record: Record) -> Any:
    return json.loads(record.value or b"")["tags"]


POISON: dict[str, bytes | None] = {
    "no JSON": b"\xff\xfe",
    "none at all": None,
    "another shape": b'{"labels": []}',
    "a text for a list": b'{"tags": "secret"}',
    "a number": b'{"tags": 5}',
    "numbers": b'{"tags": [1]}',
    "an empty tag": b'{"tags": ["secret", ""]}',
    "deep": b"[" * 100_000,
    "far too many": json.dumps({"tags": [f"secret{number}" for number in range(10_001)]}).encode(),
    "ten megabytes": b'{"tags": ["' + b"s" * 10_000_000 + b'"]}',
}


@pytest.mark.parametrize("value", POISON.values(), ids=POISON)
async def test_a_record_that_cannot_be_read_is_passed(
    broker: Kafka, value: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """It is counted as refused and handed to `on_poison` whole; those behind it are purged, the offset committed."""
    handed: list[tuple[Record, Exception]] = []

    async def on_poison(record: Record, error: Exception) -> None:
        handed.append((record, error))

    cache = HTTPCache()
    receipts = heard(cache)
    async with consumed(broker, cache, tags=by_json, on_poison=on_poison) as source:
        broker.send('{"tags": ["before"]}', value, '{"tags": ["after"]}', compression="gzip")
        state = await done(source, 2)
        await committed(broker, 3)
    assert (state.received, state.done, state.refused, state.waiting) == (3, 2, 1, 0)
    assert {tag for receipt in receipts for tag in receipt.tags} == {"before", "after"}
    ((record, error),) = handed
    assert (record.offset, record.value) == (1, value)
    assert isinstance(error, Exception)
    assert caplog.text.count("cannot read") == 1
    assert "secret" not in caplog.text
    assert "changes" in caplog.text


async def test_what_on_poison_returns_is_purged_in_place_of_it(broker: Kafka) -> None:
    """A wide tag for a record that nobody can read."""

    async def on_poison(record: Record, error: Exception) -> Iterable[str]:
        return ["products"]

    cache = HTTPCache()
    receipts = heard(cache)
    async with consumed(broker, cache, tags=by_json, on_poison=on_poison) as source:
        broker.send("?")
        await eventually(lambda: source.state().refused, "a refusal")
    assert [receipt.tags for receipt in receipts] == [("products",)]


@pytest.mark.parametrize("answer", [OSError("the topic for letters that are dead is full"), 5, "products"])
async def test_on_poison_may_fail_as_well(broker: Kafka, answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged; the records behind are not held up."""

    async def on_poison(record: Record, error: Exception) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with consumed(broker, tags=by_json, on_poison=on_poison) as source:
        broker.send("?", '{"tags": ["after"]}')
        await done(source, 1)
        await committed(broker, 2)
    assert "on_poison" in caplog.text


async def test_an_error_of_ours_says_what_is_wrong(broker: Kafka, caplog: pytest.LogCaptureFixture) -> None:
    """PoisonRecord's text is logged: it has nothing of the record; other errors are logged by their name alone."""

    def tags(record: Record) -> list[str]:
        if record.value == b"1":
            raise PoisonRecord("The shape is not known.")
        raise ValueError(record.value)

    async with consumed(broker, tags=tags) as source:
        broker.send("1", "a secret")
        await eventually(lambda: source.state().refused == 2, "two refusals")
    assert "The shape is not known." in caplog.text
    assert "ValueError" in caplog.text
    assert "a secret" not in caplog.text
