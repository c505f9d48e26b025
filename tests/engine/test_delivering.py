"""`deliver()` and `applied_everywhere()`: for what forgets an event once its purge stands, or tells others of it."""

from __future__ import annotations

import asyncio

import pytest

from fastapi_cacheinval import CacheNotRunning, HTTPCache, Receipt, ReplicasUnknown
from tests.helpers.fleet import QUICK, SECRET, eventually, fleet
from tests.helpers.trouble import filled_everywhere, never_stale, two
from tests.servers import Valkey, tcp_proxy

pytestmark = pytest.mark.anyio


async def test_it_returns_with_a_number(redis_server: Valkey) -> None:
    """With Redis there it is `invalidate`; the other replica obeys."""
    async with fleet(redis_server.url, 2) as (a, b):
        await filled_everywhere(a, b)
        a.data.versions["a"] = 1
        receipt = await a.cache.deliver("item:a")
        assert (receipt.seq, receipt.tags) == (1, ("item:a",))
        await eventually(lambda: b.statistics.applied >= receipt.seq, "the purge on B")
        await never_stale((a, b), 1, seconds=0)


async def test_everything_is_one_purge(redis_server: Valkey) -> None:
    """For who has lost count of what has changed."""
    async with fleet(redis_server.url, 1) as (a,):
        receipt = await a.cache.deliver(everything=True)
        assert receipt.everything
        assert receipt.tags == ()


async def test_it_outlasts_an_outage(redis_server: Valkey) -> None:
    """It does not return while Redis is away, fences meanwhile, does not fill the queue, and returns when it is back."""
    async with two(redis_server) as (a, b, proxy):
        await filled_everywhere(a, b)
        proxy.black_hole()
        await b.out_of_touch()
        a.data.versions["a"] = 1
        delivery = asyncio.ensure_future(b.cache.deliver("item:a"))
        await eventually(lambda: b.statistics.queue_length == 1, "the queued purge")
        await never_stale((b,), 1)
        assert b.statistics.queue_length == 1
        assert not delivery.done()
        proxy.heal()
        receipt = await asyncio.wait_for(delivery, 20)
        assert receipt.seq >= 1
        await eventually(lambda: a.statistics.applied >= receipt.seq, "the purge on A")
        await never_stale((a, b), 1, seconds=0)


async def test_it_outlasts_an_outage_where_nothing_is_served(redis_server: Valkey) -> None:
    """A worker that only publishes has no heartbeat of its own, and finds Redis again all the same."""
    with tcp_proxy(redis_server.port) as proxy:
        proxy.black_hole()
        async with HTTPCache.from_url(proxy.url, secret=SECRET, **QUICK) as cache:
            delivery = asyncio.ensure_future(cache.deliver("item:a"))
            await eventually(lambda: cache.statistics().queue_length == 1, "the queued purge")
            proxy.heal()
            assert (await asyncio.wait_for(delivery, 20)).tags == ("item:a",)
            await eventually(lambda: not cache.statistics().queue_length, "the end of the queue")


@pytest.mark.parametrize("queued", [True, False], ids=["queued", "being written"])
@pytest.mark.parametrize("serving", [True, False])
async def test_a_cache_that_stops_during_an_outage_ends_a_delivery(
    redis_server: Valkey, *, queued: bool, serving: bool
) -> None:
    """Nobody would write it any more: the consumer is told so, and does not acknowledge its event."""
    with tcp_proxy(redis_server.port) as proxy:
        cache = HTTPCache.from_url(proxy.url, secret=SECRET, **QUICK)
        async with cache:
            if serving:
                await cache.start()
            await cache.invalidate("b")
            proxy.black_hole()
            delivery = asyncio.ensure_future(cache.deliver("item:a"))
            if queued:
                await eventually(lambda: cache.statistics().queue_length == 1, "the queued purge")
        await cache.stop()
        with pytest.raises(CacheNotRunning):
            await asyncio.wait_for(delivery, 20)


async def test_a_cache_that_is_not_started_delivers_nothing() -> None:
    """It says so at once: nothing would try again."""
    with pytest.raises(CacheNotRunning):
        await HTTPCache().deliver("a")


async def test_who_hears_of_a_purge_can_wait_for_all_replicas(redis_server: Valkey) -> None:
    """A listener that has a receipt only learns when everybody has applied it, and how many have."""
    async with fleet(redis_server.url, 3) as nodes:
        heard: list[Receipt] = []

        async def listen(receipt: Receipt) -> None:
            done = await nodes[0].cache.applied_everywhere(receipt)
            assert min(node.statistics.applied for node in nodes) >= receipt.seq
            heard.append(done)

        nodes[0].cache.add_listener(listen)
        redis_server.execute("HSET", "{cacheinval}:state", "opened", 1)
        await nodes[0].ask(method="PUT")
        await eventually(lambda: heard, "the listener")
        assert heard[0].replicas == 3
        assert heard[0].seconds is not None


async def test_a_receipt_of_an_earlier_term_is_applied_where_the_later_one_is_known(redis_server: Valkey) -> None:
    """A new term begins with everything given up, so nobody has to have read the old line."""
    async with fleet(redis_server.url, 2, **QUICK) as (a, b):
        receipt = await a.cache.invalidate("item:a")
        redis_server.execute("FLUSHALL")
        await eventually(lambda: a.statistics.term == b.statistics.term == 2, "the new term")
        done = await a.cache.applied_everywhere(receipt)
        assert done.replicas == 2


async def test_without_the_log_nobody_knows(redis_server: Valkey) -> None:
    """Then it raises, and whoever depends on it waits for the bound."""
    async with two(redis_server) as (_, b, proxy):
        receipt = await b.cache.invalidate("item:a")
        proxy.black_hole()
        await b.out_of_touch()
        with pytest.raises(ReplicasUnknown):
            await b.cache.applied_everywhere(receipt)
