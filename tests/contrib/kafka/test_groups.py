"""Members of a group come, go and die; each record is purged, and no offset is committed by one that has lost it."""

from __future__ import annotations

import asyncio

import pytest

from fastapi_cacheinval import HTTPCache, Receipt
from fastapi_cacheinval.contrib.kafka import KafkaSource
from tests.contrib.kafka.broker import Kafka
from tests.contrib.kafka.sources import committed, consumed, consuming, done, heard, joined, named
from tests.helpers.fleet import eventually

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("strategy", ["cooperative-sticky", "range"])
async def test_two_share_the_partitions_and_one_takes_them_back(broker: Kafka, strategy: str) -> None:
    """Records go on being purged while a second member joins, works and leaves; each at least once."""
    one, two = HTTPCache(), HTTPCache()
    receipts = heard(one)
    others = heard(two)
    config = broker.config(partition_assignment_strategy=strategy)

    def purged() -> set[str]:
        return {tag for receipt in (*receipts, *others) for tag in receipt.tags}

    async with consumed(broker, one, config=config) as first:
        broker.send("a0")
        broker.send("a1", partition=1)
        await eventually(lambda: purged() >= {"a0", "a1"}, "what came before")
        async with consumed(broker, two, config=config) as second:
            held = lambda source: len(consuming(source)._partitions.held)  # noqa: E731
            await eventually(lambda: held(first) == held(second) == 1, "a partition for each")
            broker.send("b0")
            broker.send("b1", partition=1)
            await eventually(lambda: purged() >= {"b0", "b1"}, "what came to both")
            assert len(others) >= 1
            assert first.state().done >= 3
        await eventually(lambda: held(first) == 2, "both partitions again")
        broker.send("c0")
        broker.send("c1", partition=1)
        await eventually(lambda: purged() >= {"c0", "c1"}, "what came after")
    assert await asyncio.to_thread(broker.committed) == (3, 3)


async def test_what_is_under_way_when_partitions_go_is_left_to_others(broker: Kafka) -> None:
    """A batch whose partitions were taken is not committed by the one that lost them, and is purged by the other."""
    gate = asyncio.Event()
    attempts: list[Receipt] = []

    async def then(receipt: Receipt) -> None:
        attempts.append(receipt)
        await gate.wait()

    two = HTTPCache()
    others = heard(two)
    async with consumed(broker, then=then) as first:
        broker.send(*("a0",) * 3)
        broker.send(*("a1",) * 3, partition=1)
        await eventually(lambda: attempts, "a batch under way")
        async with consumed(broker, two) as second:
            await eventually(lambda: second.state().done >= 3, "the other's half")
            offsets = await asyncio.to_thread(broker.committed)
            gate.set()
            await eventually(lambda: first.state().waiting == 0, "the end of the batch")
            await eventually(lambda: None not in broker.committed(), "offsets of both")
    assert others
    assert None in offsets
    assert await asyncio.to_thread(broker.committed) == (3, 3)


async def test_what_cannot_be_handed_on_is_given_up_once_its_partitions_are_lost(broker: Kafka) -> None:
    """`then` fails on and on, and the session ends with the broker: the batch is left, and comes again."""
    failing = True

    async def then(receipt: Receipt) -> None:
        if failing:
            raise OSError("the CDN is away")

    async with consumed(broker, then=then) as source:
        broker.send("item:a")
        await eventually(lambda: source.state().waiting == 1, "a batch under way")
        broker.away()
        await eventually(lambda: source.state().waiting == 0, "its end")
        assert source.state().done == 0
        failing = False
        broker.back()
        await done(source, 1)
        await committed(broker, 1)


async def test_a_group_that_has_no_offset_where_records_are_many_begins_with_everything(
    broker: Kafka, caplog: pytest.LogCaptureFixture
) -> None:
    """Without auto.offset.reset: one purge of everything, said as an error, then only what comes after it."""
    config = broker.config()
    del config["auto.offset.reset"]
    broker.send(*("old",) * 10_001)
    cache = HTTPCache()
    receipts = heard(cache)
    async with consumed(broker, cache, config=config) as source:
        await eventually(lambda: receipts, "a purge")
        await committed(broker, 10_001)
        broker.send("new")
        await done(source, 1)
        await committed(broker, 10_002)
    assert len(receipts) == 2
    assert "old" not in receipts[0].tags
    assert receipts[1].tags == ("new",)
    assert "Everything is purged in their place" in caplog.text


@pytest.mark.parametrize("strategy", ["cooperative-sticky", "range"])
@pytest.mark.parametrize("wide", [None, ["products", "brands"]])
async def test_records_that_were_deleted_unread_are_purged_for(
    broker: Kafka, wide: list[str] | None, strategy: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The committed offset is past retention: everything, or what is wide enough, is purged once; then it goes on."""
    config = broker.config(partition_assignment_strategy=strategy)
    async with consumed(broker, config=config) as source:
        broker.send("a")
        await done(source, 1)
    # The broker keeps five megabytes of a partition.
    for _ in range(8):
        await asyncio.to_thread(broker.send, "b" * 999_000)
    cache = HTTPCache()
    receipts = heard(cache)
    tags = lambda record: [(record.value or b"")[:1].decode()]  # noqa: E731
    async with consumed(broker, cache, config=config, tags=tags, wide=wide) as source:
        await eventually(lambda: "may be lost" in caplog.text, "a word about it")
        broker.send("c")
        await eventually(lambda: any("c" in receipt.tags for receipt in receipts), "what came after")
        await committed(broker, 10)
    assert "deleted before they were read" in caplog.text
    if wide is None:
        assert sum(not {"b", "c"} & set(receipt.tags) for receipt in receipts) <= 1
        assert receipts[0].tags != ("b",)
    else:
        assert set(receipts[0].tags) >= set(wide)


async def test_one_without_partitions_stands_by(broker: Kafka) -> None:
    """A third member of a group over two partitions is in touch, without trouble, and takes over."""
    async with consumed(broker), consumed(broker):
        source = KafkaSource(HTTPCache(), broker.config(), [broker.topic], tags=named)
        async with source.cache, source:
            await eventually(lambda: source.state().connected, "being in touch")
            assert source.state().trouble == ""
    async with source.cache, source:
        await joined(source)
