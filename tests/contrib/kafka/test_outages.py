"""Redis and the broker go and come back, in any order, and nothing is lost."""

from __future__ import annotations

import asyncio

import pytest

from fastapi_cacheinval import HTTPCache
from tests.contrib.kafka.broker import Kafka
from tests.contrib.kafka.sources import committed, consumed, consuming, done, heard, replicas
from tests.helpers.fleet import QUICK, eventually
from tests.servers import Valkey

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("how", ["pause", "kill"])
async def test_redis_goes_mid_stream_and_the_offset_waits_for_it(redis_server: Valkey, broker: Kafka, how: str) -> None:
    """Redis away: nothing is committed and the group is kept; Redis back: purged, committed, fresh elsewhere."""
    async with replicas(redis_server.url, broker, fleet=QUICK) as (a, b, source):
        broker.send("item:x")
        await done(source, 1)
        await committed(broker, 1)
        await b.ask()
        a.data.versions["a"] += 1
        redis_server.pause() if how == "pause" else redis_server.kill()
        broker.send("item:a", "item:b")
        await eventually(lambda: source.state().waiting == 2, "records that wait")
        await a.out_of_touch()
        assert source.state().done == 1
        assert source.state().connected
        assert (await asyncio.to_thread(broker.committed))[0] == 1
        redis_server.resume() if how == "pause" else redis_server.start()
        await done(source, 3)
        await committed(broker, 3)
        await a.in_touch()
        await b.in_touch()
        await eventually(lambda: b.statistics.applied >= a.statistics.applied, "the purge on the other replica")
        assert '"version":1' in (await b.ask()).body.decode()


async def test_while_redis_is_away_polling_goes_on_and_memory_is_bounded(redis_server: Valkey, broker: Kafka) -> None:
    """Longer than max.poll.interval.ms: still in the group, one batch in hand, one gathered, the rest is lag."""
    config = broker.config(max_poll_interval_ms=1500)
    async with replicas(redis_server.url, broker, fleet=QUICK, config=config, batch_tags=10) as (_, _, source):
        assigned = consuming(source)._partitions._epoch
        redis_server.pause()
        broker.send(*(f"item:{number}" for number in range(200)))
        await eventually(lambda: consuming(source)._paused, "paused partitions")
        await eventually(lambda: (source.state().lag or 0) >= 175, "the lag of what is not fetched")
        state = source.state()
        assert state.waiting <= 25
        assert state.waiting + (state.lag or 0) == 200
        # What would have put it out of the group has passed.
        await asyncio.sleep(2.5)
        assert consuming(source)._partitions._epoch == assigned
        assert source.state().waiting == state.waiting
        redis_server.resume()
        await done(source, 200)
        await committed(broker, 200)
        assert consuming(source)._partitions._epoch == assigned


async def test_the_broker_goes_and_comes_back(broker: Kafka) -> None:
    """It is told in `trouble`, with the reason; when the broker is back the next record is purged."""
    cache = HTTPCache()
    receipts = heard(cache)
    async with consumed(broker, cache) as source:
        broker.send("item:a")
        await done(source, 1)
        broker.away()
        await eventually(lambda: not source.state().connected, "knowing of it")
        state = source.state()
        assert state.running
        assert "Connection refused" in state.trouble or "Disconnected" in state.trouble or "down" in state.trouble
        broker.back()
        await eventually(lambda: source.state().connected, "being in touch again")
        broker.send("item:b")
        await done(source, 2)
        await committed(broker, 2)
    assert {tag for receipt in receipts for tag in receipt.tags} == {"item:a", "item:b"}


ORDERS = [
    ("redis", "broker", "redis", "broker"),
    ("redis", "broker", "broker", "redis"),
    ("broker", "redis", "broker", "redis"),
    ("broker", "redis", "redis", "broker"),
]


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
async def test_both_go_and_come_back_in_any_order(redis_server: Valkey, broker: Kafka, order: tuple[str, ...]) -> None:
    """A record that was on its way is purged in the end, and its offset committed."""
    gate = asyncio.Event()

    async def then(receipt: object) -> None:
        await gate.wait()

    async with replicas(redis_server.url, broker, fleet=QUICK, then=then) as (a, b, source):
        broker.send("item:before")
        await eventually(lambda: source.state().waiting == 1, "a record in hand")
        broker.send("item:a")
        await b.ask()
        a.data.versions["a"] += 1
        for each in order[:2]:
            await asyncio.to_thread(broker.away if each == "broker" else redis_server.kill)
        gate.set()
        await a.out_of_touch()
        for each in order[2:]:
            await asyncio.to_thread(broker.back if each == "broker" else redis_server.start)
        await committed(broker, 2)
        await a.in_touch()
        await b.in_touch()
        await eventually(lambda: b.statistics.applied >= a.statistics.applied, "the purge on the other replica")
        assert '"version":1' in (await b.ask()).body.decode()
        await eventually(lambda: source.state().connected and not source.state().trouble, "no trouble")


async def test_it_stops_promptly_while_the_broker_is_away(broker: Kafka) -> None:
    """Also with a commit under way that nobody answers: the stop waits two seconds at most."""
    loop = asyncio.get_running_loop()
    async with consumed(broker) as source:
        broker.send("item:a")
        await done(source, 1)
        broker.away()
        await eventually(lambda: not source.state().connected, "knowing of it")
        began = loop.time()
    assert loop.time() - began < 4
    # What was left to itself ends with the broker's return.
    broker.back()


async def test_it_stops_promptly_while_redis_is_away(redis_server: Valkey, broker: Kafka) -> None:
    """What is in hand is given up, not committed, and comes again."""
    loop = asyncio.get_running_loop()
    async with replicas(redis_server.url, broker, fleet=QUICK) as (_, _, source):
        redis_server.pause()
        broker.send("item:a")
        await eventually(lambda: source.state().waiting == 1, "a record in hand")
        began = loop.time()
    assert loop.time() - began < 8
    redis_server.resume()
    assert (await asyncio.to_thread(broker.committed))[0] is None
    async with replicas(redis_server.url, broker, fleet=QUICK) as (_, _, source):
        await done(source, 1)
        await committed(broker, 1)
