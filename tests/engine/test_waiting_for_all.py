"""`wait="all"`: a purge that returns when every replica that could serve has applied it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from fastapi_cacheinval import HTTPCache, PurgeNotDelivered, ReplicasUnknown
from fastapi_cacheinval.core.log_types import LogEntry
from fastapi_cacheinval.errors import LogUnavailable
from tests.engine.looks import Looks
from tests.helpers.fleet import PATIENT, SECRET, eventually, fleet, joining, of_age
from tests.helpers.trouble import QUICK, TIMEOUT, agreed, filled_everywhere, never_stale
from tests.servers import Valkey, tcp_proxy

pytestmark = pytest.mark.anyio


async def test_all_have_applied_it_when_it_returns(redis_server: Valkey) -> None:
    """The receipt has how many replicas and how long; whoever is asked next obeys."""
    async with fleet(redis_server.url, 4) as nodes:
        of_age(redis_server)
        await filled_everywhere(nodes[0], nodes[1])
        for number in range(1, 6):
            nodes[0].data.versions["a"] = number
            receipt = await nodes[number % 4].cache.invalidate("item:a", wait="all")
            assert {node.statistics.applied for node in nodes} == {number}
            assert receipt.replicas == 4
            assert receipt.seconds is not None
            assert 0 < receipt.seconds < 5
            await never_stale(nodes, number, seconds=0)


async def test_who_expects_to_wait_for_each_does_not_wait_for_heartbeats(redis_server: Valkey) -> None:
    """Heartbeats are 20 s apart: purges of whatever kind are applied everywhere at once all the same."""
    async with fleet(redis_server.url, 3, staleness_bound=60, redis_timeout=10) as (a, b, c):
        of_age(redis_server)
        await asyncio.gather(a.in_touch(), b.in_touch(), c.in_touch())
        a.cache.expect_waiting()
        began = time.monotonic()
        assert (await a.ask(method="PUT")).status_code == 200
        receipt = await a.cache.applied_everywhere(await a.cache.invalidate_url("/items/b"))
        assert receipt.replicas == 3
        assert {node.statistics.applied for node in (a, b, c)} == {receipt.seq}
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("way", ["url", "clear", "soft"])
async def test_every_kind_of_purge_can_wait(redis_server: Valkey, way: str) -> None:
    """By path, of everything, softly."""
    async with fleet(redis_server.url, 2) as (a, b):
        of_age(redis_server)
        match way:
            case "url":
                receipt = await a.cache.invalidate_url("/items/a", wait="all")
            case "clear":
                receipt = await a.cache.clear(wait="all")
            case _:
                receipt = await a.cache.invalidate("item:a", soft=True, wait="all")
        assert receipt.replicas == 2
        assert b.statistics.applied == 1


async def test_in_a_new_term_it_waits_for_the_leases_of_the_one_before(redis_server: Valkey) -> None:
    """Who does not know of the new term yet may serve for as long as its lease; so long it is not done."""
    async with fleet(redis_server.url, 2, **QUICK) as (a, b):
        await asyncio.gather(a.in_touch(), b.in_touch())
        began = time.monotonic()
        redis_server.execute("FLUSHALL")
        receipt = await a.cache.invalidate("item:a", wait="all")
        assert time.monotonic() - began >= QUICK["staleness_bound"] * 0.9
        assert receipt.replicas == 2
        assert receipt.term == 2


async def test_who_is_cut_off_is_waited_for_until_its_lease_is_over(redis_server: Valkey) -> None:
    """B cannot be reached: the purge is done for all when B may not serve any more, and not before."""
    with tcp_proxy(redis_server.port) as proxy:
        async with (
            fleet(redis_server.url, 1, **QUICK) as (a,),
            fleet(proxy.url, 1, data=a.data, first=1, **QUICK) as (b,),
        ):
            of_age(redis_server)
            await filled_everywhere(a, b)
            proxy.black_hole()
            a.data.versions["a"] = 1
            began = time.monotonic()
            receipt = await a.cache.invalidate("item:a", wait="all")
            assert not b.live
            assert time.monotonic() - began < 3 * QUICK["staleness_bound"]
            assert receipt.replicas == 1
            await never_stale([a, b], 1, seconds=0)
            proxy.heal()


async def test_after_the_servers_clock_was_set_back_nobody_is_waited_for_longer_than_a_lease(
    redis_server: Valkey,
) -> None:
    """What was written before lies an hour ahead: the lease of one that died then ends a bound from now, once."""
    async with fleet(redis_server.url, 1, **QUICK) as (a,):
        hour, now = 3_600_000_000, int(redis_server.execute("TIME")[0]) * 1_000_000
        bound = int(QUICK["staleness_bound"] * 1_000_000)
        redis_server.execute("HSET", "{cacheinval}:acks", "dead", f"0 {now + hour} {bound}")
        for field in ("opened", "marked", "pruned"):
            redis_server.execute("HINCRBY", "{cacheinval}:state", field, hour)
        first = await a.cache.invalidate("item:a", wait="all")
        assert first.replicas == 1
        redis_server.execute("HSET", "{cacheinval}:acks", "dead", f"0 {now + hour} {bound}")
        began = time.monotonic()
        for _ in range(5):
            assert (await a.cache.invalidate("item:a", wait="all")).replicas == 1
        assert time.monotonic() - began < 3 * QUICK["staleness_bound"]
        state = redis_server.execute("HMGET", "{cacheinval}:state", "opened", "marked", "pruned")
        assert max(map(int, state)) < now + hour / 2


async def test_who_has_stopped_is_not_waited_for(redis_server: Valkey) -> None:
    """A replica that is shut down gives up its lease, and its place among those who are waited for."""
    async with fleet(redis_server.url, 1, staleness_bound=60) as (a,):
        async with joining(redis_server.url, a.data, staleness_bound=60):
            of_age(redis_server)
        began = time.monotonic()
        receipt = await a.cache.invalidate("item:a", wait="all")
        assert receipt.replicas == 1
        assert time.monotonic() - began < 10


async def test_who_only_publishes_takes_no_lease_and_is_not_waited_for(redis_server: Valkey) -> None:
    """`async with cache:` in a script: it can wait for all, and nobody waits for it."""
    async with fleet(redis_server.url, 2, staleness_bound=60) as (a, b):
        of_age(redis_server)
        script = HTTPCache.from_url(redis_server.url, secret=SECRET, staleness_bound=60)
        async with script:
            receipt = await script.invalidate("item:a", wait="all")
            assert receipt.replicas == 2
            assert agreed(a, b)
            assert script.statistics().lease_remaining <= 0
            assert script.statistics().connected
            receipt = await a.cache.invalidate("item:b", wait="all")
            assert receipt.replicas == 2
        assert len(redis_server.execute("HGETALL", "{cacheinval}:acks")) == 3


async def test_without_being_started_it_can_wait_too(redis_server: Valkey) -> None:
    """One call, from nowhere, with connections that are gone afterwards."""
    async with fleet(redis_server.url, 2) as (a, b):
        of_age(redis_server)
        script = HTTPCache.from_url(redis_server.url, secret=SECRET)
        receipt = await script.invalidate("item:a", wait="all")
        assert receipt.replicas == 2
        assert agreed(a, b)
        assert receipt.seq == a.statistics.applied
        receipt = await asyncio.to_thread(script.invalidate_sync, "item:a")
        assert receipt.seq == 2


async def test_a_purge_without_a_number_is_not_waited_for(redis_server: Valkey) -> None:
    """Out of reach: `PurgeNotDelivered`, as without `wait`."""
    with tcp_proxy(redis_server.port) as proxy:
        async with fleet(proxy.url, 1, **QUICK) as (a,):
            proxy.refuse()
            proxy.reset()
            with pytest.raises(PurgeNotDelivered):
                await a.cache.invalidate("item:a", wait="all")
            assert a.statistics.queue_length == 1


async def test_if_the_log_is_lost_while_waiting_nobody_pretends(redis_server: Valkey) -> None:
    """The purge has its number and the rest cannot be seen: `ReplicasUnknown` says which, soon."""
    with tcp_proxy(redis_server.port) as proxy:
        async with (
            fleet(proxy.url, 1, staleness_bound=30, redis_timeout=TIMEOUT) as (a,),
            fleet(redis_server.url, 1, data=a.data, first=1, staleness_bound=30) as (b,),
        ):
            # A young term: it would have to wait for half a minute.
            waiting: Any = asyncio.create_task(a.cache.invalidate("item:a", wait="all"))
            await eventually(lambda: b.statistics.applied == 1, "the purge")
            proxy.refuse()
            proxy.reset()
            with pytest.raises(ReplicasUnknown) as caught:
                await asyncio.wait_for(waiting, 10)
            assert caught.value.seq == 1
            assert a.statistics.queue_length == 0


async def test_however_many_wait_there_is_one_look_at_a_time(redis_server: Valkey, looks: Looks) -> None:
    """Without the word of the others each would look for itself, and heartbeats would wait behind all of them."""
    looks.begin_after(0.0)
    async with fleet(redis_server.url, 2, **PATIENT) as (a, b):
        of_age(redis_server)
        waiting = [a.cache.invalidate(f"item:{number}", wait="all") for number in range(300)]
        receipts = await asyncio.gather(*waiting)
        assert {receipt.replicas for receipt in receipts} == {2}
        assert b.statistics.applied == a.statistics.applied
    assert looks.most == 1
    assert len(looks.lines) < 300


async def test_who_waits_when_the_cache_stops_is_told_so(redis_server: Valkey, looks: Looks) -> None:
    """A replica that reads nothing keeps it waiting; nobody is left to look."""
    async with fleet(redis_server.url, 1, **PATIENT) as (a,):
        of_age(redis_server)
        later = int(redis_server.execute("TIME")[0]) + 3600
        redis_server.execute("HSET", "{cacheinval}:acks", "deaf", f"0 {later * 1_000_000} 30000000")
        waiting = asyncio.ensure_future(a.cache.invalidate("item:a", wait="all"))
        await eventually(lambda: looks.lines, "a look")
        await a.cache.stop()
        with pytest.raises((ReplicasUnknown, PurgeNotDelivered)):
            await asyncio.wait_for(waiting, 10)


async def test_who_waits_is_told_so_if_the_looking_ends_before_its_first_step(redis_server: Valkey) -> None:
    """A task that is cancelled before it has begun runs no line of its own, not the one that tells who waits either."""
    async with fleet(redis_server.url, 1, **PATIENT) as (a,):
        bus = a.cache._core._shared_bus
        assert bus is not None
        looks = bus._followers[asyncio.get_running_loop()].looks
        line = LogEntry(a.cache._core.engine.replica.term, 1, "nonce", ("item:a",), soft=False, at=0.0)
        waiting = asyncio.ensure_future(looks.until_applied(line))
        await asyncio.sleep(0)
        await looks.close()
        with pytest.raises(LogUnavailable):
            await asyncio.wait_for(waiting, 10)
