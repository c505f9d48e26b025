"""A source starts and stops with its cache, or alone."""

from __future__ import annotations

import asyncio
import threading

import pytest

from fastapi_cacheinval import ConfigurationError, HTTPCache
from fastapi_cacheinval.contrib.kafka import KafkaSource
from tests.contrib.kafka.broker import Kafka
from tests.contrib.kafka.sources import consumed, done, heard, joined, named
from tests.helpers.fleet import eventually

pytestmark = pytest.mark.anyio


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == "cacheinval kafka"]


async def test_it_starts_and_stops_with_the_cache(broker: Kafka) -> None:
    """Attached, it is entered at each start and left at each stop; its thread and its place in the group go."""
    cache = HTTPCache()
    receipts = heard(cache)
    source = KafkaSource(cache, broker.config(), [broker.topic], tags=named)
    cache.attach(source)
    for number in (1, 2):
        async with cache:
            await joined(source)
            assert cache.statistics().sources["kafka"] == source.state()
            assert source.state().running
            assert threads()
            broker.send("item:a")
            await done(source, number)
        assert not source.state().running
        assert not source.state().connected
        await eventually(lambda: not threads(), "the end of its thread")
    assert len(receipts) == 2
    assert (await asyncio.to_thread(broker.committed))[0] == 2


async def test_it_runs_alone(broker: Kafka) -> None:
    """`run()` starts the cache for it, and ends when it is cancelled."""
    source = KafkaSource(HTTPCache(), broker.config(), [broker.topic], tags=named)
    running = asyncio.ensure_future(source.run())
    broker.send("item:a")
    await done(source, 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not source.cache.running
    await eventually(lambda: not threads(), "the end of its thread")


async def test_it_is_entered_once(broker: Kafka) -> None:
    """A second time while it runs is an error, which disturbs nothing."""
    async with consumed(broker) as source:
        with pytest.raises(ConfigurationError, match="runs already"):
            await source.__aenter__()
        broker.send("item:a")
        await done(source, 1)


async def test_a_stop_at_once_leaves_nothing(broker: Kafka) -> None:
    """Stopped before its task began, or while it asks for a first answer."""
    for turns in (0, 1, 5):
        source = KafkaSource(HTTPCache(), broker.config(), [broker.topic], tags=named)
        async with source.cache, source:
            for _ in range(turns):
                await asyncio.sleep(0)
        await eventually(lambda: not threads(), "the end of its thread")


async def test_a_loop_that_is_gone_ends_the_thread(broker: Kafka) -> None:
    """Where nobody stops it, the next record does: it is not committed, and others get it."""

    def abandoned() -> None:
        async def start() -> None:
            source = KafkaSource(HTTPCache(), broker.config(), [broker.topic], tags=named)
            handle = source._open()
            handle.consuming.start()
            await eventually(lambda: handle.consuming.lag is not None, "a place in the group")

        asyncio.run(start())

    await asyncio.to_thread(abandoned)
    assert threads()
    broker.send("item:a")
    await eventually(lambda: not threads(), "the end of its thread")
    async with consumed(broker) as source:
        await done(source, 1)
