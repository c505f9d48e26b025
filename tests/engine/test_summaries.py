"""Each replica leaves a summary in Redis: bounded, with a TTL, seldom, and nothing depends on it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.bus.fleet import RedisFleet
from fastapi_cacheinval.bus.summary_codec import MOST_BYTES
from fastapi_cacheinval.connections.urls import by_url
from fastapi_cacheinval.core.fleet import Fleet
from fastapi_cacheinval.engine.clocks import SystemClock
from fastapi_cacheinval.engine.summaries import SummaryWriter
from fastapi_cacheinval.errors import TierUnavailable
from tests.helpers.fleet import CALM, PATIENCE, Node, eventually, fleet
from tests.servers import Valkey

pytestmark = pytest.mark.anyio


async def fleet_of(url: str, namespace: str = "cacheinval") -> Fleet:
    """The replicas as Redis tells of them now."""
    client = by_url(url, PATIENCE, 2**20)()
    try:
        return await RedisFleet(client, namespace, namespace).read()
    finally:
        await client.close()


async def _told(server: Valkey, count: int) -> Fleet:
    """The replicas once so many have left a summary."""
    found = await fleet_of(server.url)
    while sum(each.summary is not None for each in found.replicas) < count:
        found = await fleet_of(server.url)
    return found


def _keys(server: Valkey) -> list[str]:
    return [str(key) for key in server.client.scan_iter("{cacheinval}:replica:*")]


async def _rest(*nodes: Node) -> None:
    """A third of a lease, once all that waits for it has begun to wait."""
    for node in nodes:
        await node.ask("/nowhere")
        node.clock.tick(CALM["staleness_bound"] / 3)


async def test_every_replica_is_seen_with_what_it_counts(redis_server: Valkey) -> None:
    """Two replicas, a miss on one, a hit from L2 on the other: each says so under its own id, beside its lease."""
    async with fleet(redis_server.url, clocks=True) as (one, two):
        await one.ask()
        await one.written()
        await two.ask()
        await _rest(one, two)
        found = await _told(redis_server, 2)
        assert found.log is not None
        assert found.log.seq == 0
        assert {each.live for each in found.replicas} == {True}
        assert found.bound == CALM["staleness_bound"]
        summaries = [each.summary for each in found.replicas if each.summary is not None]
        assert {each.replica for each in summaries} == {each.replica for each in found.replicas}
        assert sorted(each.statistics.misses for each in summaries) == [0, 1]
        assert sorted(each.statistics.hits for each in summaries) == [0, 1]
        assert {each.apps for each in summaries} == {("FastAPI",)}
        assert [each.statistics.routes["GET /items/{name}"].requests for each in summaries] == [1, 1]
        assert [each.rates["GET /items/{name}"] for each in summaries] == [3 / CALM["staleness_bound"]] * 2


async def test_a_summary_tells_the_purges_of_others_and_their_delay(redis_server: Valkey) -> None:
    """The one that purged tells none, the other that one, with a number that is a time."""
    async with fleet(redis_server.url, clocks=True) as (one, two):
        receipt = await one.cache.invalidate("item:a")
        await eventually(lambda: two.statistics.applied == receipt.seq, "the purge on the other replica")
        await _rest(one, two)
        found = await _told(redis_server, 2)
        applied = sorted(each.summary.applied for each in found.replicas if each.summary is not None)
        assert applied[0] == ()
        ((term, seq, seconds, _late),) = applied[1]
        assert (term, seq) == (receipt.term, receipt.seq)
        assert seconds is not None
        assert 0 <= seconds < PATIENCE


async def test_a_summary_is_one_set_per_lease_with_a_ttl_and_goes_with_its_replica(redis_server: Valkey) -> None:
    """Between two summaries nothing is written; a replica that stops takes its own away."""
    async with fleet(redis_server.url, 1, clocks=True) as (node,):
        await _rest(node)
        await _told(redis_server, 1)
        (key,) = _keys(redis_server)
        assert 0 < int(redis_server.execute("PTTL", key)) <= 15_000 * CALM["staleness_bound"]
        assert int(redis_server.execute("STRLEN", key)) <= MOST_BYTES
        sets = redis_server.info("commandstats")["cmdstat_set"]["calls"]
        await _rest(node, node)
        assert redis_server.info("commandstats")["cmdstat_set"]["calls"] == sets
        await _rest(node)
        await eventually(
            lambda: redis_server.info("commandstats")["cmdstat_set"]["calls"] == sets + 1, "the next summary"
        )
    assert _keys(redis_server) == []


async def test_where_summaries_are_refused_all_else_works_and_nothing_is_logged(
    redis_server: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """A user without the right to that key: hits, purges and the stop are as ever."""
    redis_server.execute(
        "ACL", "SETUSER", "app", "on", ">pw", "+@all", "%RW~{cacheinval}:state", "~{cacheinval}:log", "~{cacheinval}:tags",
        "~{cacheinval}:acks", "~cacheinval:*", "~{cacheinval:*", "&*",
    )  # fmt: skip
    url = redis_server.url.replace("redis://", "redis://app:pw@")
    with caplog.at_level(logging.WARNING, "fastapi_cacheinval"):
        async with fleet(url, 1, clocks=True) as (node,):
            await _rest(node)
            await node.ask()
            await node.ask()
            assert node.statistics.hits == 1
            assert (await node.cache.invalidate("item:a")).seq == 1
            found = await fleet_of(redis_server.url)
            assert [each.summary for each in found.replicas] == [None]
            assert found.replicas[0].live
    redis_server.execute("ACL", "DELUSER", "app")
    assert [record.getMessage() for record in caplog.records] == []


async def test_a_process_that_only_publishes_leaves_none(redis_server: Valkey) -> None:
    """A worker takes no lease, and nobody has to wait for it or to look at it."""
    async with HTTPCache.from_url(redis_server.url, **CALM) as cache:
        await cache.invalidate("a")
        assert (await fleet_of(redis_server.url)).replicas == ()
    assert _keys(redis_server) == []


async def test_reading_a_namespace_that_nobody_uses_makes_no_key(redis_server: Valkey) -> None:
    """A misspelt namespace stays what it is: nothing."""
    assert (await fleet_of(redis_server.url, "nobody's")).log is None
    assert redis_server.client.keys("*") == []


@pytest.mark.parametrize("garbage", ["", "x", "1 2", "a b c", "9" * 400 + " 1 1"])
async def test_garbage_among_the_acknowledgements_is_a_replica_of_which_nothing_is_known(
    redis_server: Valkey, garbage: str
) -> None:
    """And a summary that cannot be read is none."""
    async with fleet(redis_server.url, 1, clocks=True):
        redis_server.execute("HSET", "{cacheinval}:acks", "odd", garbage)
        redis_server.execute("SET", "{cacheinval}:replica:odd", "garbage", "EX", "60")
        found = {each.replica: each for each in (await fleet_of(redis_server.url)).replicas}
        assert (found["odd"].live, found["odd"].summary, found["odd"].name) == (False, None, "odd")
        assert len(found) == 2


async def test_a_key_of_another_type_is_no_log(redis_server: Valkey) -> None:
    """It is said, not raised as something that nobody expects."""
    redis_server.execute("SET", "{cacheinval}:state", "a text", "EX", "60")
    with pytest.raises(TierUnavailable, match="WRONGTYPE"):
        await fleet_of(redis_server.url)


async def test_several_event_loops_of_a_process_leave_one_summary(redis_server: Valkey) -> None:
    """They are one replica: a loop that ends leaves the summary to those that go on."""
    import anyio.to_thread

    async with fleet(redis_server.url, 1, clocks=True) as (node,):

        def other_loop() -> Any:
            async def run() -> None:
                await node.cache.start()
                await node.cache.stop()

            anyio.run(run)

        await _rest(node)
        await _told(redis_server, 1)
        await anyio.to_thread.run_sync(other_loop)
        assert len(_keys(redis_server)) == 1


class _Facts:
    """Facts of which the first cannot be told."""

    clock = SystemClock()
    pause = 0.01
    loops = 0

    def __init__(self) -> None:
        self.asked = 0

    def due(self) -> bool:
        return True

    def summary(self, replica: str) -> str:
        self.asked += 1
        if self.asked < 3:
            raise ValueError("a count that nobody expected")
        return replica


class _Summaries:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.written = asyncio.Event()

    async def write(self, summary: str, life: float) -> None:
        self.written.set()

    async def drop(self, replica: str) -> None: ...


async def test_an_error_in_one_summary_does_not_end_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once with its traceback, and the next one is written."""
    summaries: Any = _Summaries()
    facts: Any = _Facts()
    writer = SummaryWriter(summaries, facts, lambda: "r1")
    writer.start()
    async with asyncio.timeout(PATIENCE):
        await summaries.written.wait()
    await writer.close()
    [record] = [record for record in caplog.records if "could not be made" in record.getMessage()]
    assert record.exc_info is not None
