"""A CDN is purged only when no replica hands out what was purged, and once more after that."""

from __future__ import annotations

import asyncio
import json
import time
from functools import partial

import pytest

from fastapi_cacheinval import HTTPCache, PurgeNotDelivered, Receipt
from fastapi_cacheinval.contrib.cdn import CDNPurger
from fastapi_cacheinval.testing import FakeClock
from tests.contrib.cdn.fakes import FakeFastly, Purged, serving
from tests.contrib.cdn.purging import confirmed, fastly, purging, state_of
from tests.helpers.fleet import Node, eventually, fleet, joining
from tests.helpers.http import settle
from tests.helpers.trouble import BOUND, QUICK, filled_everywhere, two
from tests.servers import Valkey, tcp_proxy

pytestmark = pytest.mark.anyio


def of_age(server: Valkey) -> None:
    """Make the log's term an old one: in a young one there may be leases of the term before."""
    server.execute("HSET", "{cacheinval}:state", "opened", 1)


def has_failed(cache: HTTPCache, times: int) -> bool:
    """Whether the CDN was asked in vain so often."""
    return state_of(cache).failures == times


class Refilling:
    """A CDN that is asked for what it has just purged: it fetches it at once, from the replica that is told last."""

    def __init__(self, fake: FakeFastly, node: Node) -> None:
        self.filled: list[int] = []
        self._node = node
        self._loop = asyncio.get_running_loop()
        fake.watch = self._fill

    def has(self, count: int) -> bool:
        """Whether it was filled so often."""
        return len(self.filled) >= count

    def _fill(self, purged: Purged) -> None:
        answer = asyncio.run_coroutine_threadsafe(self._node.ask(), self._loop).result(10)
        self.filled.append(json.loads(answer.body)["version"])


async def test_the_first_refill_is_never_an_old_one(redis_server: Valkey) -> None:
    """B hears of purges late: the CDN, filled from B as soon as it is purged, has the new version each time."""
    with serving(FakeFastly()) as fake:
        async with two(redis_server, staleness_bound=3, redis_timeout=1) as (a, b, proxy):
            of_age(redis_server)
            await filled_everywhere(a, b)
            async with CDNPurger(a.cache, fastly(fake), again_after=0):
                refilling = Refilling(fake, b)
                proxy.delay(to_client=0.15)
                for number in range(1, 4):
                    assert (await a.ask(method="PUT")).status_code == 200
                    await eventually(partial(refilling.has, number), "the refill")
                    assert refilling.filled[number - 1] == number


async def test_a_replica_that_is_cut_off_is_waited_for_until_it_may_not_serve(redis_server: Valkey) -> None:
    """B hears nothing: the CDN is purged when B's lease is over, and what it is filled with in the end is new.

    What B has filled less than a bound ago it may hand out without a lease: the second purge is for that.
    """
    with serving(FakeFastly()) as fake:
        async with two(redis_server) as (a, b, proxy):
            of_age(redis_server)
            await filled_everywhere(a, b)
            async with CDNPurger(a.cache, fastly(fake)):
                refilling = Refilling(fake, b)
                proxy.black_hole()
                assert (await a.ask(method="PUT")).status_code == 200
                await eventually(lambda: refilling.filled, "the refill")
                assert not b.live
                await eventually(partial(refilling.has, 2), "the refill after the second purge")
                assert refilling.filled[1] == 1


async def test_where_it_cannot_be_known_the_staleness_bound_is_waited_for(redis_server: Valkey) -> None:
    """Redis goes away right after the purge: it is told when nobody can hand out the old version any more."""
    with serving(FakeFastly()) as fake, tcp_proxy(redis_server.port) as proxy:
        async with fleet(proxy.url, 2, **QUICK) as (a, b):
            await filled_everywhere(a, b)

            async def cut(receipt: Receipt) -> None:
                proxy.black_hole()

            a.cache.add_listener(cut)
            async with CDNPurger(a.cache, fastly(fake), again_after=0):
                a.data.versions["a"] = 1
                began = time.monotonic()
                await a.cache.invalidate("item:a")
                await confirmed(fake, 1)
                assert time.monotonic() - began >= BOUND * 0.9
                assert json.loads((await b.ask()).body)["version"] == 1
            proxy.heal()


async def test_a_purge_that_waits_for_redis_is_told_once_it_is_written(redis_server: Valkey) -> None:
    """While it has no number the CDN is not purged: replicas have not heard of it either."""
    with serving(FakeFastly()) as fake, tcp_proxy(redis_server.port) as proxy:
        async with (
            fleet(proxy.url, 1, **QUICK) as (a,),
            joining(redis_server.url, a.data, **QUICK) as b,
            CDNPurger(a.cache, fastly(fake), again_after=0),
        ):
            proxy.black_hole()
            with pytest.raises(PurgeNotDelivered):
                await a.cache.invalidate("item:a")
            await a.out_of_touch()
            assert fake.requests == []
            applied: list[int] = []
            fake.watch = lambda _: applied.append(b.cache._core.engine.replica.applied)
            proxy.heal()
            await confirmed(fake, 1)
            assert fake.keys == ["item:a"]
            assert applied[0] >= 1


async def test_it_is_purged_once_more(redis_server: Valkey) -> None:
    """After `again_after` seconds, by default the staleness bound, and not a third time."""
    clock = FakeClock()
    with serving(FakeFastly()) as fake:
        async with purging(fastly(fake), clock=clock, again_after=None, bound=3.0) as (cache, _):
            await cache.invalidate("a", soft=True)
            await eventually(lambda: state_of(cache).done == 1, "the first purge")
            clock.tick(2.9)
            await settle()
            assert fake.purged == [Purged(("a",), soft=True)]
            clock.tick(0.1)
            await confirmed(fake, 2)
            clock.tick(10)
            await settle()
            assert fake.purged == [Purged(("a",), soft=True)] * 2
            assert state_of(cache).done == 1


async def test_what_is_due_again_goes_with_what_is_new(redis_server: Valkey) -> None:
    """One request for both; what was new is due again after it, each in its own time."""
    clock = FakeClock()
    with serving(FakeFastly()) as fake:
        async with purging(fastly(fake), clock=clock, again_after=2, bound=3.0) as (cache, _):
            fake.faults.append("503")
            await cache.invalidate("a")
            await eventually(lambda: state_of(cache).failures == 1, "the failure")
            clock.tick(1)
            await confirmed(fake, 1)
            await eventually(lambda: state_of(cache).done == 1, "the first purge")
            fake.faults.append("503")
            await cache.invalidate("b", "a")
            await eventually(lambda: state_of(cache).failures == 2, "the failure")
            clock.tick(2)
            await eventually(lambda: len(fake.purged) == 2, "the second purge")
            assert [set(purged.keys) for purged in fake.purged] == [{"a"}, {"a", "b"}]
            await eventually(lambda: state_of(cache).done == 3, "the count")
            clock.tick(2)
            await eventually(lambda: len(fake.purged) == 3, "the third purge")
            assert set(fake.purged[2].keys) == {"a", "b"}


async def test_a_fill_that_was_under_way_does_not_last() -> None:
    """What the CDN stores after the purge, but read before it, is gone after the second one."""
    clock = FakeClock()
    stored: dict[str, str] = {}

    def purged(what: Purged) -> None:
        for key in what.keys:
            stored.pop(key, None)

    with serving(FakeFastly()) as fake:
        fake.watch = purged
        async with purging(fastly(fake), clock=clock, again_after=2) as (cache, _):
            on_its_way = "old"
            await cache.invalidate("a")
            await eventually(lambda: state_of(cache).done == 1, "the first purge")
            stored["a"] = on_its_way
            clock.tick(2)
            await confirmed(fake, 2)
            assert stored == {}


async def test_a_source_waits_for_the_cdn() -> None:
    """`then=purger.purge`: it returns when the CDN has confirmed, and not before."""
    with serving(FakeFastly()) as fake:
        clock = FakeClock()
        fake.faults.extend(["503"] * 3)
        async with purging(fastly(fake), clock=clock) as (cache, purger):
            receipt = await cache.deliver("a", "b")
            waiting = asyncio.create_task(purger.purge(receipt))
            for failures in range(1, 4):
                await eventually(partial(has_failed, cache, failures), "the failure")
                assert not waiting.done()
                clock.tick(30)
            await asyncio.wait_for(waiting, 10)
            assert set(fake.keys) == {"a", "b"}


async def test_many_callers_share_what_goes_out() -> None:
    """A hundred who wait for the same tag at once are one or two requests, and all return."""
    with serving(FakeFastly()) as fake:
        async with purging(fastly(fake)) as (cache, purger):
            fake.faults.append("503")
            receipts = [await cache.deliver("a") for _ in range(100)]
            await asyncio.wait_for(asyncio.gather(*map(purger.purge, receipts)), 10)
            assert len(fake.requests) <= 3


async def test_nothing_to_purge_is_not_waited_for() -> None:
    """A receipt without tags returns at once."""
    with serving(FakeFastly()) as fake:
        async with purging(fastly(fake)) as (cache, purger):
            await asyncio.wait_for(purger.purge(await cache.invalidate()), 20)
            assert fake.requests == []
