"""What a replica does while Redis is away: what it serves, what its mutations say, what becomes of their purges."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import Depends

from fastapi_cacheinval import CachePolicy, PurgeNotDelivered, cached
from fastapi_cacheinval.core.backlog import Backlog
from fastapi_cacheinval.testing import assert_hit, assert_miss, assert_stale, capture_invalidations
from tests.helpers.fleet import Node, eventually, fleet
from tests.helpers.trouble import (
    agreed,
    filled_everywhere,
    never_stale,
    promptly,
    says_disconnected,
    two,
    written,
)
from tests.servers import Proxy, Valkey, tcp_proxy

pytestmark = pytest.mark.anyio


# B's clock stands: its leases are as long as calls are patient.
STILL: dict[str, Any] = {"staleness_bound": 9.0, "redis_timeout": 3.0}
BOUND: float = STILL["staleness_bound"]


@asynccontextmanager
async def cut_off(server: Valkey, **options: Any) -> AsyncIterator[tuple[Node, Node, Proxy]]:
    """A, and B which has `a` in its L1 and has just lost Redis; B's clock stands."""
    with tcp_proxy(server.port) as proxy:
        given = {**STILL, **options}
        async with (
            fleet(server.url, 1, **given) as (a,),
            fleet(proxy.url, 1, data=a.data, first=1, clocks=True, **given) as (b,),
        ):
            await filled_everywhere(a, b)
            lose(proxy)
            b.clock.tick(BOUND / 3 + 0.01)
            await eventually(lambda: not b.statistics.connected, "the loss")
            yield a, b, proxy
            proxy.heal()


def lose(proxy: Proxy) -> None:
    """Nobody gets through any more."""
    proxy.refuse()
    proxy.reset()


def after(node: Node, seconds: float) -> Any:
    """How a replica stands some seconds of its clock later."""
    node.clock.tick(seconds)
    return node.statistics


async def back(node: Node, proxy: Proxy) -> None:
    """Let a replica find Redis again."""
    proxy.heal()

    def ticked() -> bool:
        node.clock.tick(BOUND / 10)
        return node.live and node.statistics.connected and not node.statistics.queue_length

    await eventually(ticked, "the log found again")


async def test_a_mutation_stands_and_says_that_its_purge_is_queued(redis_server: Valkey) -> None:
    """`Cacheinval-Purge: queued` and `detail=disconnected`; here nothing of before is served, elsewhere after the return."""
    async with cut_off(redis_server) as (a, b, proxy):
        answer = await promptly(b, method="PUT")
        assert answer.headers["cacheinval-purge"] == "queued"
        assert says_disconnected(answer)
        statistics = b.statistics
        assert statistics.queue_length == 1
        assert statistics.purges["queued"] == 1
        # The lease is still live: it is the fence that refuses.
        assert b.live
        await never_stale([b], 1, seconds=0)
        assert_hit(await a.ask())
        with capture_invalidations(b.cache) as receipts:
            await back(b, proxy)
        (receipt,) = receipts
        assert receipt.tags == ("item:a",)
        assert receipt.paths == ("/items/a",)
        await eventually(lambda: a.statistics.applied == receipt.seq, "the purge")
        await never_stale([a, b], 1, seconds=0)
        assert not b.cache._core.engine.replica.fenced(("item:a",))
        assert b.statistics.purges["published"] == 1


async def test_a_purge_by_hand_that_is_not_delivered_says_so(redis_server: Valkey) -> None:
    """`PurgeNotDelivered` names the tags and the reason, is obeyed here at once and delivered later."""
    async with cut_off(redis_server) as (a, b, proxy):
        with pytest.raises(PurgeNotDelivered) as caught:
            await b.cache.invalidate("item:a", "more")
        assert caught.value.tags == ("item:a", "more")
        assert caught.value.queued
        assert "out of reach" in str(caught.value)
        assert_miss(await b.ask())
        await back(b, proxy)
        await eventually(lambda: a.statistics.applied == 1, "the purge")
        assert_miss(await a.ask())


async def test_a_soft_purge_that_is_queued_is_delivered_as_one(redis_server: Valkey) -> None:
    """Soft and hard purges keep their kinds in the queue; a soft one fences nothing."""
    policy = CachePolicy(ttl=60, stale_while_revalidate=60, jitter=0, early_refresh=0)
    async with cut_off(redis_server, policy=policy) as (a, b, proxy):
        with pytest.raises(PurgeNotDelivered):
            await b.cache.invalidate("item:a", soft=True)
        with pytest.raises(PurgeNotDelivered):
            await b.cache.invalidate("item:b")
        assert b.statistics.queue_length == 2
        await back(b, proxy)
        await eventually(lambda: a.statistics.applied == 2, "both purges")
        a.data.gate = asyncio.Event()
        assert_stale(await a.ask())
        a.data.gate.set()


async def test_what_was_just_filled_is_served_while_disconnected(redis_server: Valkey) -> None:
    """An own fill protects the handler for the bound from its start, and not a moment longer."""
    async with cut_off(redis_server) as (_, b, _):
        b.clock.tick(BOUND)
        assert not b.live
        before = b.data.forwards
        first = await promptly(b)
        assert says_disconnected(first)
        assert first.cache is not None
        assert first.cache.stored
        b.clock.tick(BOUND - 0.01)
        assert_hit(await promptly(b))
        assert b.data.forwards == before + 1
        b.clock.tick(0.02)
        assert_miss(await promptly(b))


async def test_a_fill_that_takes_longer_than_the_bound_is_not_kept_while_disconnected(redis_server: Valkey) -> None:
    """What its handler read may be known to be wrong elsewhere by the time it is done; who waits goes forward."""
    async with cut_off(redis_server) as (_, b, _):
        b.clock.tick(BOUND)
        b.data.gate = asyncio.Event()
        calls = [b.call("/items/slow") for _ in range(3)]
        await eventually(lambda: b.data.calls[-1][1] == "slow", "the handler")
        b.clock.tick(BOUND + 0.01)
        b.data.gate.set()
        for call in calls:
            answer = await call.answer()
            assert answer.status_code == 200
            assert answer.cache is not None
            assert not answer.cache.stored
        assert_miss(await promptly(b, "/items/slow"))


async def test_stale_when_disconnected_says_how_long_what_is_there_may_be_served(redis_server: Valkey) -> None:
    """After the lease what this replica has is served for that long; what was purged here is not."""
    async with cut_off(redis_server, stale_when_disconnected=30) as (a, b, _):
        a.data.versions["a"] = 1
        await a.cache.invalidate("item:a")
        b.clock.tick(BOUND + 20)
        assert not b.live
        old = await promptly(b)
        assert_hit(old)
        assert b'"version":0' in old.body
        answer = await promptly(b, method="PUT")
        assert answer.headers["cacheinval-purge"] == "queued"
        assert b'"version":2' in (await promptly(b)).body
        b.clock.tick(20)
        assert_miss(await promptly(b))


async def test_mutations_may_be_refused_while_disconnected(redis_server: Valkey) -> None:
    """503 before the handler runs, with `Retry-After`; what purges nothing goes through, and reads do."""

    def routes(node: Node) -> None:
        @node.app.post("/harmless")
        async def harmless() -> str:
            return "done"

    async with cut_off(redis_server, routes=routes, mutations_when_disconnected="refuse") as (a, b, proxy):
        # Under a live lease a mutation is let through: the loss may be over by the time of its purge.
        b.clock.tick(BOUND)
        answer = await b.ask(method="PUT")
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert says_disconnected(answer)
        assert b.data.versions["a"] == 0
        assert b.statistics.queue_length == 0
        assert (await b.ask("/harmless", method="POST")).status_code == 200
        assert (await b.ask()).status_code == 200
        await back(b, proxy)
        await written(b)
        await eventually(lambda: agreed(a), "the purge")


async def test_a_full_queue_becomes_one_purge_of_everything(redis_server: Valkey) -> None:
    """Nothing is lost: past its bound the queue is one line for all, here and elsewhere."""
    async with cut_off(redis_server) as (a, b, proxy):
        await promptly(a, "/items/untouched")
        b.cache._core.bus._shared.backlog = Backlog(most_entries=5)  # type: ignore[attr-defined]
        for number in range(7):
            with pytest.raises(PurgeNotDelivered):
                await b.cache.invalidate(f"other:{number}")
        assert b.statistics.queue_length <= 2
        with capture_invalidations(b.cache) as receipts:
            await back(b, proxy)
        assert any(receipt.everything for receipt in receipts)
        await eventually(lambda: a.statistics.applied == receipts[-1].seq, "the purge")
        assert_miss(await a.ask("/items/untouched"))
        assert_miss(await a.ask())
        replica = b.cache._core.engine.replica
        assert not any(replica.fenced((f"other:{number}",)) for number in range(7))


async def test_many_queued_purges_share_lines_in_their_order(redis_server: Valkey) -> None:
    """A thousand purges come back as a few lines, and a fence lasts until its own line is written."""
    async with cut_off(redis_server) as (a, b, proxy):
        for number in range(1000):
            with pytest.raises(PurgeNotDelivered):
                await b.cache.invalidate(f"item:{number}", f"more:{number}")
        assert b.statistics.queue_length == 1000
        await back(b, proxy)
        assert b.statistics.applied == 2
        await eventually(lambda: a.statistics.applied == 2, "both lines")
        assert not b.cache._core.engine.replica.fenced(tuple(f"item:{number}" for number in range(1000)))


async def test_a_stop_delivers_what_is_queued_if_it_can(redis_server: Valkey, caplog: Any) -> None:
    """One last try: a server that is back by then gets the purge although the replica has not noticed."""
    with caplog.at_level(logging.ERROR, "fastapi_cacheinval"), tcp_proxy(redis_server.port) as proxy:
        async with fleet(redis_server.url, 1) as (a,):
            async with fleet(proxy.url, 1, data=a.data, first=1, clocks=True) as (b,):
                heard: list[Any] = []

                async def listener(receipt: Any) -> None:
                    heard.append(receipt)

                b.cache.add_listener(listener)
                lose(proxy)
                await promptly(b, method="PUT")
                assert b.statistics.queue_length == 1
                proxy.heal()
            await eventually(lambda: a.statistics.applied == 1, "the purge")
            assert [receipt.tags for receipt in heard] == [("item:a",)]
    assert caplog.records == []


async def test_a_stop_without_redis_says_how_many_purges_are_lost(redis_server: Valkey, caplog: Any) -> None:
    """What could not be delivered is an error in the log, with its count, and the stop takes no longer than the bound."""
    with caplog.at_level(logging.ERROR, "fastapi_cacheinval"), tcp_proxy(redis_server.port) as proxy:
        async with fleet(proxy.url, 1, clocks=True) as (b,):
            lose(proxy)
            for name in "abc":
                await promptly(b, f"/items/{name}", method="PUT")
        (record,) = caplog.records
        assert "3 purge(s)" in record.getMessage()


async def test_the_loss_and_the_return_are_logged_once(redis_server: Valkey, caplog: Any) -> None:
    """However many requests and heartbeats fail in between: one warning each."""
    with caplog.at_level(logging.INFO, "fastapi_cacheinval"):
        async with two(redis_server) as (a, b, proxy):
            await filled_everywhere(a, b)
            caplog.clear()
            for _ in range(2):
                lose(proxy)
                await b.out_of_touch()
                for name in "abcdef":
                    await promptly(b, f"/items/{name}")
                proxy.heal()
                await b.in_touch()
            said = [record.getMessage() for record in caplog.records if record.name == "fastapi_cacheinval.bus"]
            assert ["out of touch" in text for text in said] == [True, False, True, False]
            assert all("in touch" in text for text in said[1::2])
            assert len(caplog.records) == 4


async def test_a_log_that_comes_and_goes_is_not_said_to_each_time(redis_server: Valkey, caplog: Any) -> None:
    """Ten outages within seconds: three are said, with their ends. One that lasts is said all the same, half a minute later."""
    with caplog.at_level(logging.INFO, "fastapi_cacheinval.bus"), tcp_proxy(redis_server.port) as proxy:
        async with fleet(proxy.url, 1, clocks=True, **STILL) as (b,):
            began = b.clock.now()
            for _ in range(10):
                lose(proxy)
                b.clock.tick(BOUND / 30)
                b.cache._core.bus._followers[asyncio.get_running_loop()].want()  # type: ignore[attr-defined]
                await eventually(lambda: not b.statistics.connected, "the loss")
                proxy.heal()
                await eventually(lambda: after(b, 0.05).connected, "the return")
            said = [record.getMessage() for record in caplog.records]
            # On a slow machine the clock is ticked more often before a return is noticed.
            more = int((b.clock.now() - began) // 30)
            assert ["out of touch" in text for text in said] == [True, False] * (len(said) // 2)
            assert 3 <= len(said) // 2 <= 3 + more
            lose(proxy)
            b.cache._core.bus._followers[asyncio.get_running_loop()].want()  # type: ignore[attr-defined]
            await eventually(lambda: not b.statistics.connected, "the loss")
            # The loss of the subscription is said apart from it, before or after.
            await eventually(
                lambda: not after(b, 1.0).connected and "out of touch" in str(caplog.messages[len(said) :]),
                "the word of it",
            )
            proxy.heal()


async def test_statistics_tell_how_a_replica_stands(redis_server: Valkey) -> None:
    """Lease, term, place, lag, queue and whether it is in touch, before, while and after it was away."""
    async with cut_off(redis_server) as (a, b, proxy):
        statistics = b.statistics
        assert statistics.term == 1
        assert statistics.applied == statistics.lag == statistics.queue_length == 0
        assert not statistics.connected
        assert 0 < statistics.lease_remaining <= BOUND
        b.clock.tick(BOUND)
        assert b.statistics.lease_remaining <= 0
        await written(a)
        assert a.statistics.applied == 1
        assert a.statistics.connected
        await promptly(b, "/items/b", method="PUT")
        assert b.statistics.queue_length == 1
        await back(b, proxy)
        statistics = b.statistics
        assert statistics.connected
        assert statistics.applied == 2
        assert statistics.lag == statistics.queue_length == 0
        assert 0 < statistics.lease_remaining <= BOUND
        assert dict(statistics.purges) == {"missed": 1, "queued": 1, "published": 1}


async def test_a_commit_after_the_loss_is_purged_too(redis_server: Valkey) -> None:
    """A mutation held for its commit, with Redis gone in between: fenced after the commit, delivered on return."""
    entered = asyncio.Event()
    leave = asyncio.Event()

    async def session() -> AsyncIterator[None]:
        yield
        entered.set()
        await leave.wait()

    def routes(node: Node) -> None:
        from fastapi_cacheinval import invalidates

        @node.app.put("/held/{name}", dependencies=[Depends(session), invalidates("item:{name}")])
        async def held(name: str) -> str:
            node.data.versions[name] += 1
            return name

        @node.app.get("/both", dependencies=[cached(ttl=60, tags=["item:a"])])
        async def both() -> Any:
            return await node.data.read(node.number, "a")

    async with two(redis_server, routes=routes) as (a, b, proxy):
        await filled_everywhere(a, b)
        call = b.call("/held/a", method="PUT")
        await asyncio.wait_for(entered.wait(), 20)
        lose(proxy)
        leave.set()
        answer = await call.answer()
        assert answer.status_code == 200
        assert answer.headers["cacheinval-purge"] == "queued"
        await never_stale([b], 1, seconds=0)
        proxy.heal()
        await eventually(lambda: agreed(a, b) and not b.statistics.queue_length, "the queued purge")
        await never_stale([a, b], 1)
