"""Records become purges, and offsets are committed when these have their numbers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastapi_cacheinval import HTTPCache, Receipt
from fastapi_cacheinval.contrib.kafka import EVERYTHING, Record
from tests.contrib.kafka.broker import Kafka
from tests.contrib.kafka.sources import committed, consumed, done, heard, replicas
from tests.helpers.fleet import eventually
from tests.servers import Valkey

pytestmark = pytest.mark.anyio


async def test_another_replica_answers_freshly_after_a_record(redis_server: Valkey, broker: Kafka) -> None:
    """What a record names is gone on the replica that has no source; the offset is committed."""
    async with replicas(redis_server.url, broker) as (a, b, source):
        await b.ask()
        assert '"version":0' in (await b.ask()).body.decode()
        assert b.statistics.hits
        a.data.versions["a"] += 1
        broker.send("item:a")
        await done(source, 1)
        await eventually(lambda: b.statistics.applied >= a.statistics.applied, "the purge on the other replica")
        assert '"version":1' in (await b.ask()).body.decode()
        await committed(broker, 1)


async def test_what_comes_together_is_one_purge(broker: Kafka) -> None:
    """A hundred records that wait are few purges with all their tags, none twice, in order."""
    cache = HTTPCache()
    receipts = heard(cache)
    broker.send(*(f"item:{number % 50}" for number in range(100)))
    async with consumed(broker, cache) as source:
        await done(source, 100)
        assert len(receipts) < 20
        assert {tag for receipt in receipts for tag in receipt.tags} == {f"item:{number}" for number in range(50)}
        await committed(broker, 100)


async def test_a_purge_keeps_to_its_bounds(broker: Kafka) -> None:
    """However many tags there are, also of one record: none of the purges has more than asked for."""
    cache = HTTPCache()
    receipts = heard(cache)
    broker.send(*(f"{number}" for number in range(30)))
    tags = lambda record: [f"{int(record.value or 0)}-{each}" for each in range(25)]  # noqa: E731
    async with consumed(broker, cache, tags=tags, batch_tags=10, batch_bytes=40) as source:
        await done(source, 30)
    assert sum(len(receipt.tags) for receipt in receipts) == 750
    assert max(len(receipt.tags) for receipt in receipts) <= 10
    assert max(sum(map(len, receipt.tags)) for receipt in receipts) <= 40


async def test_the_function_is_given_the_whole_record(broker: Kafka) -> None:
    """Topic, place, key, value, headers and time; none of the contents in its repr."""
    records: list[Record] = []

    def keep(record: Record) -> None:
        records.append(record)

    async with consumed(broker, tags=keep) as source:
        broker.send("a value", key=b"a key", headers={"one": b"1"}, partition=1)
        await done(source, 1)
    (record,) = records
    assert (record.topic, record.partition, record.offset) == (broker.topic, 1, 0)
    assert (record.key, record.value, record.headers) == (b"a key", b"a value", (("one", b"1"),))
    assert record.timestamp is not None
    assert record.timestamp > 1e9
    assert "a value" not in repr(record)
    assert "a key" not in repr(record)


async def test_a_record_may_change_everything_or_nothing(broker: Kafka) -> None:
    """EVERYTHING clears; None and no tags purge nothing, and are done all the same."""
    cache = HTTPCache()
    receipts = heard(cache)
    found: dict[bytes, Any] = {b"all": EVERYTHING, b"none": None, b"empty": []}
    async with consumed(broker, cache, tags=lambda record: found[record.value or b""]) as source:
        broker.send("none", "empty")
        await done(source, 2)
        assert receipts == []
        await committed(broker, 2)
        broker.send("all")
        await done(source, 3)
    (receipt,) = receipts
    assert not receipt.tags or receipt.tags[0].startswith("\x01")


async def test_purges_are_soft_where_that_is_asked_for(broker: Kafka) -> None:
    """The receipt says so."""
    cache = HTTPCache()
    receipts = heard(cache)
    async with consumed(broker, cache, soft=True) as source:
        broker.send("item:a")
        await done(source, 1)
    assert [receipt.soft for receipt in receipts] == [True]


async def test_nothing_is_committed_before_then_has_returned(broker: Kafka) -> None:
    """`then` gets the receipt; while it fails it is called again, and the record is neither done nor committed."""
    failing = True
    receipts: list[Receipt] = []

    async def then(receipt: Receipt) -> None:
        receipts.append(receipt)
        if failing:
            raise OSError("the CDN is away")

    async with consumed(broker, then=then) as source:
        broker.send("item:a")
        await eventually(lambda: len(receipts) >= 3, "attempts")
        state = source.state()
        assert (state.done, state.waiting) == (0, 1)
        assert state.failures >= 2
        assert state.trouble == "OSError: the CDN is away"
        assert await asyncio.to_thread(broker.committed) == (None, None)
        failing = False
        state = await done(source, 1)
        await committed(broker, 1)
    assert {receipt.tags for receipt in receipts} == {("item:a",)}
    assert source.state().trouble == ""


async def test_replay_from_the_beginning_is_harmless(broker: Kafka) -> None:
    """A group that reads all over again purges all over again, and ends at the same offset."""
    broker.send("item:a", "item:b")
    for group in ("one", "another"):
        cache = HTTPCache()
        receipts = heard(cache)
        async with consumed(broker, cache, config=broker.config(group)) as source:
            await done(source, 2)
            await committed(broker, 2, group)
        assert {tag for receipt in receipts for tag in receipt.tags} == {"item:a", "item:b"}


async def test_it_goes_on_where_it_ended(broker: Kafka) -> None:
    """What was committed is not read again by the next that starts; what came between is."""
    async with consumed(broker) as source:
        broker.send("item:a")
        await done(source, 1)
    assert (await asyncio.to_thread(broker.committed))[0] == 1
    broker.send("item:b")
    cache = HTTPCache()
    receipts = heard(cache)
    async with consumed(broker, cache) as source:
        await done(source, 1)
    assert [receipt.tags for receipt in receipts] == [("item:b",)]


async def test_a_topic_that_comes_later_is_read_from_its_first_record(broker: Kafka) -> None:
    """Topics by pattern: one that is made while the source runs loses nothing."""
    cache = HTTPCache()
    receipts = heard(cache)
    config = broker.config(topic_metadata_refresh_interval_ms=200)
    async with consumed(broker, cache, config=config, topics=["^later.*"]) as source:
        broker.create("later-1")
        broker.send("item:a", topic="later-1")
        await done(source, 1)
    assert [receipt.tags for receipt in receipts] == [("item:a",)]
