"""What can be seen of a source: its state, its metrics, and spans that link to the producer's."""

from __future__ import annotations

import asyncio
import time

import pytest

from fastapi_cacheinval import HTTPCache, SourceState
from fastapi_cacheinval.contrib.kafka import KafkaSource
from tests.contrib.kafka.broker import Kafka
from tests.contrib.kafka.sources import consumed, done, named
from tests.helpers.fleet import eventually
from tests.helpers.telemetry import Recorded, linked_to

pytestmark = pytest.mark.anyio


async def test_statistics_and_metrics_tell_how_it_stands(broker: Kafka) -> None:
    """Counts, what waits, and the lag: the records beyond it, known without asking on the loop."""
    gate = asyncio.Event()
    recorded = Recorded()
    cache = HTTPCache(**recorded.providers)

    async def then(receipt: object) -> None:
        await gate.wait()

    source = KafkaSource(cache, broker.config(), [broker.topic], tags=named, then=then, batch_tags=5, name="orders")
    cache.attach(source)
    async with cache:
        await eventually(lambda: source.state().lag is not None, "a place in the group")
        broker.send(*(f"{number}" for number in range(40)))
        await eventually(lambda: (source.state().lag or 0) + source.state().waiting == 40, "all of it to be seen")
        state = cache.statistics().sources["orders"]
        assert isinstance(state, SourceState)
        assert state.running
        assert state.connected
        assert state.done == 0
        assert 0 < state.waiting < 40
        assert recorded.values("cacheinval.source.lag", "cacheinval.source") == {("orders",): 40}
        assert recorded.values("cacheinval.source.connected", "cacheinval.source") == {("orders",): 1}
        gate.set()
        await done(source, 40)
        await eventually(lambda: source.state().lag == 0, "nothing behind")
        events = recorded.values("cacheinval.source.events", "cacheinval.source", "cacheinval.event")
        assert events["orders", "received"] == events["orders", "done"] == 40
        assert events["orders", "refused"] == events["orders", "failed"] == 0
    assert not source.state().running


async def test_the_purge_links_to_the_traces_of_the_producers(broker: Kafka) -> None:
    """Each trace among the records of a purge once; tracestate comes along; what is no trace does not matter."""
    recorded = Recorded()
    cache = HTTPCache(**recorded.providers)
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    for state in (b"vendor=1", b"\xff"):
        broker.send("item:a", headers={"traceparent": f"00-{trace}-{span}-01".encode(), "tracestate": state})
    broker.send("item:b", headers={"Traceparent": b"nonsense"})
    broker.send("item:c", headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01".encode()})
    async with consumed(broker, cache) as source:
        await done(source, 4)
    links = {link for each in recorded.spans("cacheinval.invalidate") for link in linked_to(each)}
    assert links == {(int(trace, 16), int(span, 16)), (int(trace, 16), int("00f067aa0ba902b7", 16))}


async def test_the_loop_is_never_held_up(broker: Kafka) -> None:
    """While records are read that take long, and while it starts and stops, the loop goes on turning."""
    worst = 0.0

    async def turn() -> None:
        nonlocal worst
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.001)
            worst = max(worst, time.monotonic() - began)

    def slow(record: object) -> None:
        time.sleep(0.8)

    turning = asyncio.ensure_future(turn())
    async with consumed(broker, tags=slow) as source:
        broker.send("a", "b")
        await done(source, 1)
    turning.cancel()
    assert worst < 0.6
