"""Records that cannot be read are reported and handed on; nothing of them is lost unless somebody says so."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.kafka import KafkaSource, PoisonRecord, Record, debezium
from fastapi_cacheinval.sources import DROP, KEEP, Change, Unread, UnreadableEvent
from tests.contrib.kafka.broker import Kafka
from tests.contrib.kafka.sources import committed, consumed, done, heard, joined
from tests.helpers.fleet import eventually

pytestmark = pytest.mark.anyio


def by_json(record: Record) -> Any:
    return json.loads(record.value or b"")["tags"]


POISON: dict[str, bytes | None] = {
    "no JSON": b"\xff\xfe",
    "none at all": None,
    "another shape": b'{"labels": []}',
    "an empty text": b'{"tags": ""}',
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
    """Handed to `on_unreadable` whole, which drops it: counted as refused, those behind it purged, the offset committed."""
    handed: list[tuple[Record, Exception]] = []

    async def on_unreadable(record: Record, error: Exception) -> Unread:
        handed.append((record, error))
        return DROP

    cache = HTTPCache()
    receipts = heard(cache)
    async with consumed(broker, cache, tags=by_json, on_unreadable=on_unreadable) as source:
        broker.send('{"tags": ["before"]}', value, '{"tags": ["after"]}', compression="gzip")
        state = await done(source, 2)
        await committed(broker, 3)
    assert (state.received, state.done, state.refused, state.waiting) == (3, 2, 1, 0)
    assert {tag for receipt in receipts for tag in receipt.tags} == {"before", "after"}
    ((record, error),) = handed
    assert (record.offset, record.value) == (1, value)
    assert isinstance(error, UnreadableEvent)
    assert caplog.text.count("cannot read") == 1
    assert "secret" not in caplog.text
    assert "changes" in caplog.text


async def test_a_change_is_purged_in_place_of_it(broker: Kafka) -> None:
    """A wide tag for a record that nobody can read, from a plain function as well."""
    cache = HTTPCache()
    receipts = heard(cache)
    answer = Change(("products",), soft=True)
    async with consumed(broker, cache, tags=by_json, on_unreadable=lambda record, error: answer) as source:
        broker.send("?")
        await eventually(lambda: source.state().refused, "a refusal")
        await committed(broker, 1)
    assert [(receipt.tags, receipt.soft) for receipt in receipts] == [(("products",), True)]


@pytest.mark.parametrize(
    ("options", "purged"), [({}, [(), ("after",)]), ({"wide": ["products"]}, [("products",), ("after",)])]
)
async def test_without_a_handler_what_is_wide_is_purged_in_place_of_it(
    broker: Kafka, options: dict[str, Any], purged: list[tuple[str, ...]]
) -> None:
    """Nobody knows what the record has changed: everything is purged, or the tags of `wide`, and reading goes on."""
    cache = HTTPCache()
    receipts = heard(cache)
    async with consumed(broker, cache, tags=by_json, **options) as source:
        broker.send("?")
        await eventually(lambda: source.state().refused, "a refusal")
        broker.send('{"tags": ["after"]}')
        await done(source, 1)
        await committed(broker, 2)
    assert [() if receipt.everything else receipt.tags for receipt in receipts] == purged


@pytest.mark.parametrize("answer", [OSError("the topic for letters that are dead is full"), 5, "products", None, KEEP])
async def test_a_handler_that_fails_or_keeps_loses_nothing(broker: Kafka, answer: Any) -> None:
    """The record is asked about again until it is answered; meanwhile its offset is not committed, and trouble is told."""
    asked: list[int] = []

    async def on_unreadable(record: Record, error: Exception) -> Any:
        asked.append(record.offset)
        if len(asked) > 2:
            return DROP
        if isinstance(answer, Exception):
            raise answer
        if len(asked) == 2:
            assert source.state().trouble
            assert await asyncio.to_thread(broker.committed) == (None, None)
        return answer

    cache = HTTPCache()
    receipts = heard(cache)
    async with consumed(broker, cache, tags=by_json, on_unreadable=on_unreadable) as source:
        broker.send('{"tags": ["before"]}', "?", '{"tags": ["after"]}')
        await done(source, 2)
        await committed(broker, 3)
    assert (asked, source.state().refused, source.state().failures) == ([1, 1, 1], 1, 2)
    assert {tag for receipt in receipts for tag in receipt.tags} == {"before", "after"}


async def test_a_function_that_fails_for_a_while_is_called_again_with_the_same_record(broker: Kafka) -> None:
    """A look-up that times out is not about the record: nobody is asked about it, and its own tags are purged at last."""
    failures = [TimeoutError("the registry is away"), ConnectionError("the registry is away")]

    def tags(record: Record) -> list[str]:
        if record.value == b"slow" and failures:
            raise failures.pop()
        return [(record.value or b"").decode()]

    cache = HTTPCache()
    receipts = heard(cache)
    async with consumed(broker, cache, tags=tags, on_unreadable=DROP) as source:
        broker.send("before", "slow", "after")
        await done(source, 3)
        await committed(broker, 3)
    assert (source.state().refused, source.state().failures) == (0, 2)
    assert {tag for receipt in receipts for tag in receipt.tags} == {"before", "slow", "after"}


async def test_a_record_that_is_held_is_given_up_with_its_partition(broker: Kafka) -> None:
    """Stopped while it is kept: it is not committed, and the next that starts reads it."""
    async with consumed(broker, tags=by_json, on_unreadable=KEEP) as source:
        broker.send("?")
        await eventually(lambda: source.state().failures, "a failure")
    assert await asyncio.to_thread(broker.committed) == (None, None)
    async with consumed(broker, tags=by_json, on_unreadable=DROP) as source:
        await eventually(lambda: source.state().refused, "a refusal")
        await committed(broker, 1)


@pytest.mark.parametrize(("answer", "purged"), [(None, []), (["products"], [("products",)])])
async def test_the_old_name_works_and_says_so(broker: Kafka, answer: Any, purged: Any) -> None:
    """`on_poison` of 0.1 answers with tags, or with None for nothing."""

    async def on_poison(record: Record, error: Exception) -> Any:
        return answer

    cache = HTTPCache()
    receipts = heard(cache)
    with pytest.warns(DeprecationWarning, match="on_poison is on_unreadable now"):
        made = KafkaSource(cache, broker.config(), [broker.topic], tags=by_json, on_poison=on_poison)
    async with cache, made:
        await joined(made)
        broker.send("?")
        await eventually(lambda: made.state().refused, "a refusal")
        await committed(broker, 1)
    assert [receipt.tags for receipt in receipts] == purged


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


@pytest.mark.parametrize("answer", [DROP, None, Change(("wide",))])
async def test_what_can_be_read_of_a_record_is_purged_whatever_becomes_of_the_rest(broker: Kafka, answer: Any) -> None:
    """One column that is a list refuses its own template: the tags of the others are purged first, the record is refused."""
    cache = HTTPCache()
    receipts = heard(cache)
    tags = debezium({"changes": ["product:{id}", "label:{labels}"]})
    given: dict[str, Any] = {} if answer is None else {"on_unreadable": lambda record, error: answer}
    async with consumed(broker, cache, tags=tags, soft=True, wide=["all"], **given) as source:
        broker.send('{"id": 42, "labels": ["new"]}')
        await eventually(lambda: source.state().refused == 1, "the refusal")
        await committed(broker, 1)
    asked = {"Change": ["wide"], "NoneType": ["all"], "Unread": []}[type(answer).__name__]
    assert [tag for receipt in receipts for tag in receipt.tags] == ["product:42", *asked]
    assert receipts[0].soft


async def test_a_flood_of_unreadable_records_is_one_line(broker: Kafka, caplog: pytest.LogCaptureFixture) -> None:
    """With the count of the others once the source stops, at the latest after a minute."""
    async with consumed(broker, tags=by_json, on_unreadable=DROP) as source:
        broker.send(*["?"] * 500)
        await eventually(lambda: source.state().refused == 500, "the refusals")
        assert caplog.text.count("cannot read") == 1
    assert "499 more like that" in caplog.text
