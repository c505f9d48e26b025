"""What is seen of waiting, of L2 and of resets, with replicas over a real server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry.trace import StatusCode

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.errors import TierUnavailable
from tests.helpers.fleet import CALM, eventually, fleet
from tests.helpers.telemetry import Recorded, attributes_of, identity_of
from tests.servers import Valkey

pytestmark = pytest.mark.anyio


async def test_waiting_for_another_replica_is_one_span(redis_server: Valkey) -> None:
    """However often a waiter looks, there is one read and one wait below its request, and it counts as waiting."""
    recorded = Recorded()
    async with (
        fleet(redis_server.url, 1, **CALM) as (a,),
        fleet(redis_server.url, 1, **CALM, **recorded.providers) as (b,),
    ):
        a.data.gate = asyncio.Event()
        leader = a.call()
        await eventually(lambda: a.data.forwards, "the forward")
        waiter = b.call()
        await eventually(lambda: recorded.values("cacheinval.forward.waiting") == {(): 1}, "the waiter")
        # Long enough for several looks.
        await eventually(lambda: b.l2("miss") >= 3, "more looks")
        a.data.gate.set()
        assert [(await call.answer()).status_code for call in (leader, waiter)] == [200, 200]
        assert recorded.values("cacheinval.forward.waiting") == {(): 0}
    lookup = recorded.one("cacheinval.lookup")
    below = [span for span in recorded.spans() if span.parent and span.parent.span_id == identity_of(lookup)[1]]
    assert sorted(span.name for span in below) == ["cacheinval.l2.get", "cacheinval.wait"]


async def test_the_barrier_of_wait_all_is_a_span_below_the_purge(redis_server: Valkey) -> None:
    """Waiting for all replicas is told from writing the purge, and says how many replicas there are."""
    recorded = Recorded()
    async with fleet(redis_server.url, 2, **CALM, **recorded.providers) as (a, _):
        recorded.forget()
        await a.cache.invalidate("a", wait="all")
    purge, barrier = recorded.one("cacheinval.invalidate"), recorded.one("cacheinval.barrier")
    assert barrier.parent is not None
    assert barrier.parent.span_id == identity_of(purge)[1]
    assert attributes_of(barrier) == {"replicas": 2}
    assert attributes_of(purge)["term"] == 1


async def test_a_failed_write_to_l2_says_so(redis_server: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """The span of a write that the store refused is an error with its outcome, and the metrics count both."""
    recorded = Recorded()
    async with fleet(redis_server.url, 1, **CALM, **recorded.providers) as (a,):
        assert (await a.ask()).status_code == 200
        await a.written()
        (stored,) = recorded.spans("cacheinval.l2.set")
        assert attributes_of(stored) == {"outcome": "stored"}

        async def refused(*_: Any, **__: Any) -> None:
            raise TierUnavailable("full")

        store = a.cache._core.runtime.l2._values.store  # type: ignore[union-attr]
        monkeypatch.setattr(store, "release", refused)
        monkeypatch.setattr(store, "write", refused)
        await a.ask("/items/b")
        await eventually(lambda: len(recorded.spans("cacheinval.l2.set")) == 2, "the second write")
        monkeypatch.undo()
    failed = recorded.spans("cacheinval.l2.set")[-1]
    assert attributes_of(failed) == {"outcome": "unavailable"}
    assert failed.status.status_code is StatusCode.ERROR
    assert (failed.attributes or {})["error.type"] == "TierUnavailable"
    events = recorded.values("cacheinval.l2.events", "cacheinval.event")
    assert (events["miss",], events["write",], events["unavailable",]) == (2, 1, 1)
    calls = recorded.values("cacheinval.l2.duration", "cacheinval.operation", "cacheinval.outcome")
    assert calls == {("get", "done"): 2, ("set", "done"): 1, ("set", "failed"): 1}


async def test_a_flush_is_a_reset_with_its_cause(redis_server: Valkey) -> None:
    """Where somebody empties the server, a metric and a span say that everything was given up, and why."""
    recorded = Recorded()
    async with fleet(redis_server.url, 1, staleness_bound=1.5, **recorded.providers) as (a,):
        none = {("behind",): 0, ("conflict",): 0}
        resets = {("start",): 1, ("new-term",): 0, **none}
        assert recorded.values("cacheinval.resets", "cacheinval.cause") == resets
        recorded.forget()
        redis_server.clear()
        await eventually(lambda: recorded.spans("cacheinval.reset"), "the reset")
        assert recorded.values("cacheinval.resets", "cacheinval.cause") == {**resets, ("new-term",): 1}
        assert attributes_of(recorded.spans("cacheinval.reset")[0]) == {"cause": "new-term", "term": a.statistics.term}


async def test_an_outage_is_in_the_gauges(redis_server: Valkey) -> None:
    """While the log is away its state is 0, the queue has a length and an age, and mutations are answered `queued`."""
    recorded = Recorded()
    async with fleet(redis_server.url, 1, staleness_bound=1.5, **recorded.providers) as (a,):
        assert recorded.values("cacheinval.bus.connected") == {(): 1}
        assert (await a.ask(method="PUT")).headers["cacheinval-purge"] == "done"
        redis_server.kill()
        await a.out_of_touch()
        assert (await a.ask(method="PUT")).headers["cacheinval-purge"] == "queued"
        assert recorded.values("cacheinval.bus.connected") == {(): 0}
        assert recorded.values("cacheinval.queue.length") == recorded.values("cacheinval.fence.active") == {(): 1}
        await eventually(lambda: recorded.values("cacheinval.queue.age")[()] > 0.1, "the age")
        mutations = {("done",): 1, ("queued",): 1, ("late",): 0, ("unconfirmed",): 0, ("refused",): 0}
        assert recorded.values("cacheinval.mutations", "cacheinval.outcome") == mutations
        redis_server.restart()
        await a.in_touch()
        await eventually(lambda: recorded.values("cacheinval.queue.length") == {(): 0}, "the end of the queue")
        assert recorded.values("cacheinval.queue.age") == {(): 0}
        assert recorded.values("cacheinval.bus.connected") == {(): 1}


async def test_the_kill_switch_and_the_bounds_are_in_the_gauges() -> None:
    """Whether the cache is on, how much it may keep and how many refreshes may run are read beside what there is."""
    recorded = Recorded()
    cache = HTTPCache(max_refreshes=7, l1_max_bytes=100_000, **recorded.providers)
    async with cache:
        assert recorded.values("cacheinval.enabled") == {(): 1}
        cache.enabled = False
        assert recorded.values("cacheinval.enabled") == {(): 0}
        assert recorded.values("cacheinval.l1.max") == {(): 100_000}
        assert recorded.values("cacheinval.refresh.max") == {(): 7}
        assert recorded.values("cacheinval.refresh.active") == {(): 0}
