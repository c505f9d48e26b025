"""Redis away, slow, full, read-only, emptied, restarted: the app answers, and nothing stale is served."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.fleet import QUICK, eventually, fleet, joining
from tests.helpers.trouble import (
    BOUND,
    TIMEOUT,
    agreed,
    filled_everywhere,
    never_stale,
    promptly,
    purged,
    says_disconnected,
    two,
    written,
)
from tests.servers import Valkey, replicated, tcp_proxy

pytestmark = pytest.mark.anyio


async def test_a_replica_starts_without_redis_and_joins_when_it_comes(redis_server: Valkey) -> None:
    """It starts at once, the handler answers, what it has just filled protects the handler; later it shares."""
    with tcp_proxy(redis_server.port) as proxy:
        proxy.refuse()
        began = time.monotonic()
        async with fleet(proxy.url, 1, **QUICK) as (node,):
            assert time.monotonic() - began < 4 * TIMEOUT
            assert not node.statistics.connected
            first = await promptly(node)
            assert says_disconnected(first)
            assert_hit(await promptly(node))
            proxy.heal()
            await node.in_touch()
            assert node.statistics.term == 1
            await promptly(node, "/items/b")
            await node.written()
            async with joining(redis_server.url, node.data) as other:
                assert_hit(await other.ask("/items/b"))


async def test_a_silent_redis_at_the_start_keeps_nobody_waiting(redis_server: Valkey) -> None:
    """A server that takes connections and never answers costs a start-up and a request a few timeouts."""
    with tcp_proxy(redis_server.port) as proxy:
        proxy.black_hole()
        began = time.monotonic()
        async with fleet(proxy.url, 1, **QUICK) as (node,):
            assert time.monotonic() - began < 4 * TIMEOUT + 0.5
            assert says_disconnected(await promptly(node))
            proxy.heal()
            await node.in_touch()
            await promptly(node, "/items/b")
            await node.written()


async def test_a_slow_redis_is_given_up_and_taken_up_again(redis_server: Valkey) -> None:
    """Answers that take longer than `redis_timeout` are no answers; requests go forward without waiting for them."""
    async with two(redis_server) as (a, b, proxy):
        await filled_everywhere(a, b)
        proxy.delay(to_client=3 * TIMEOUT)
        await written(a)
        await b.out_of_touch()
        for name in "abcde":
            answer = await promptly(b, f"/items/{name}")
            assert says_disconnected(answer)
        await never_stale([a, b], 1)
        proxy.heal()
        await b.in_touch()
        await never_stale([a, b], 1)
        await written(a)
        await eventually(lambda: b.statistics.applied == a.statistics.applied, "the purge")
        await never_stale([a, b], 2)


@pytest.mark.parametrize("what", ["empty", "data", "FLUSHALL", "state", "log", "tags", "acks"])
async def test_a_redis_that_forgets_makes_everybody_forget(redis_server: Valkey, what: str) -> None:
    """Restarted without its data or with them, flushed, or one of the log's keys gone: what was purged stays purged."""
    async with two(redis_server) as (a, b, _):
        # The log is made by its first line.
        await purged(a, "other")
        await filled_everywhere(a, b)
        term = a.statistics.term
        if what in ("empty", "data"):
            await asyncio.to_thread(redis_server.restart, empty=what == "empty")
        elif what == "FLUSHALL":
            redis_server.execute("FLUSHALL")
        else:
            assert redis_server.execute("DEL", f"{{cacheinval}}:{what}") == 1
        a.data.versions["a"] += 1
        await purged(a, "item:a")
        await eventually(lambda: agreed(a, b), "both in one place of the log")
        assert (a.statistics.term > term) == (what != "log")
        await never_stale([a, b], 1)
        await written(b)
        await eventually(lambda: agreed(a, b), "both in one place of the log")
        await never_stale([a, b], 2)


async def test_a_new_term_costs_one_forward_for_each_key(redis_server: Valkey) -> None:
    """After a flush each key is forwarded once in the cluster, then shared as before."""
    async with fleet(redis_server.url, 3, **QUICK) as nodes:
        for name in "abc":
            await nodes[0].ask(f"/items/{name}")
        redis_server.execute("FLUSHALL")
        await eventually(lambda: {node.statistics.term for node in nodes} == {2}, "the new term")
        for name in "abc":
            for node in nodes:
                await node.ask(f"/items/{name}")
                await eventually(lambda: sum(each.l2("write") for each in nodes) >= nodes[0].data.forwards, "writes")
        assert [name for _, name in nodes[0].data.calls] == ["a", "b", "c", "a", "b", "c"]


async def test_a_full_redis_ends_the_lease_although_it_still_answers_reads(redis_server: Valkey) -> None:
    """At `maxmemory` the heartbeat fails and `GET` succeeds: nothing from L2 is served, the app answers."""
    async with two(redis_server) as (a, b, _):
        await promptly(a)
        await a.written()
        with redis_server.configured(maxmemory=1, maxmemory_policy="noeviction"):
            await asyncio.gather(a.out_of_touch(), b.out_of_touch())
            (key,) = [key for key in redis_server.execute("KEYS", "*") if key.endswith(":r")]
            assert redis_server.execute("EXISTS", key) == 1
            answer = await promptly(b)
            assert_miss(answer)
            assert says_disconnected(answer)
            assert b.l2("hit") == 0
        await asyncio.gather(a.in_touch(), b.in_touch())
        await written(a)
        await eventually(lambda: agreed(a, b), "the purge")
        await never_stale([a, b], 1)


async def test_a_redis_that_became_a_replica_is_out_of_reach(redis_server: Valkey) -> None:
    """A server that takes no writes grants no lease and no number; when it is a primary again all goes on."""
    async with two(redis_server) as (a, b, _):
        await filled_everywhere(a, b)
        redis_server.execute("REPLICAOF", "127.0.0.1", 1)
        try:
            await asyncio.gather(a.out_of_touch(), b.out_of_touch())
            answer = await promptly(a, method="PUT")
            assert answer.headers["cacheinval-purge"] == "queued"
            await never_stale([a, b], 1)
        finally:
            redis_server.execute("REPLICAOF", "NO", "ONE")
        await asyncio.gather(a.in_touch(), b.in_touch())
        await eventually(lambda: agreed(a, b) and not a.statistics.queue_length, "the queued purge")
        await never_stale([a, b], 1)


@pytest.mark.parametrize("directions", [(), ("to_client",), ("to_server",)])
async def test_a_half_open_connection_ends_the_lease(redis_server: Valkey, directions: Any) -> None:
    """Nothing comes and nothing is closed: what the others purge meanwhile is served for the bound at most."""
    async with two(redis_server) as (a, b, proxy):
        await filled_everywhere(a, b)
        proxy.black_hole(*directions)
        await written(a)
        # The first request that meets the silence says so: under a live lease it is L2 that cannot be asked.
        assert b.live
        first = await promptly(b, "/items/first")
        assert first.cache is not None
        assert first.cache.detail == ("l2-unavailable" if b.live else "disconnected")
        deadline = time.monotonic() + BOUND
        while time.monotonic() < deadline:
            await promptly(b)
        await never_stale([a, b], 1)
        proxy.heal()
        await b.in_touch()
        await eventually(lambda: agreed(a, b), "the purge")
        await never_stale([a, b], 1)
        await written(b)
        await eventually(lambda: agreed(a, b), "the purge")
        await never_stale([a, b], 2)


async def test_a_subscriber_that_is_killed_comes_back(redis_server: Valkey) -> None:
    """Purges made while the subscription is gone are found in the log; those after it come by message again."""
    async with two(redis_server, staleness_bound=30, redis_timeout=2) as (a, b, _):
        await filled_everywhere(a, b)
        for number in range(3):
            await eventually(lambda: subscribers(redis_server) == 2, "both subscribed")
            assert redis_server.execute("CLIENT", "KILL", "TYPE", "pubsub") >= 2
            await written(a)
            # A lease is half a minute long: it is not a heartbeat that repairs this.
            await eventually(lambda: agreed(a, b), "the purge", seconds=5)
            await never_stale([a, b], number + 1, seconds=0)
        await eventually(lambda: subscribers(redis_server) == 2, "both subscribed again")
        # Who has subscribed asks the log once more; after that there is nothing but messages.
        assert await b.cache._core.bus.catch_up()
        await asyncio.sleep(0.1)
        assert await b.cache._core.bus.catch_up()
        before = b.statistics.purges.get("applied", 0)
        await written(a)
        await eventually(lambda: b.statistics.purges.get("applied", 0) > before, "a purge by message", seconds=5)


async def test_a_subscriber_whose_buffer_overruns_reads_the_log(redis_server: Valkey) -> None:
    """The server drops who cannot keep up; the purge that was too much for it is applied all the same."""
    async with two(redis_server, staleness_bound=30, redis_timeout=2) as (a, b, proxy):
        await filled_everywhere(a, b)
        with redis_server.configured(client_output_buffer_limit="pubsub 4096 0 0"):
            tags = [f"{'x' * 900}:{number}" for number in range(100)]
            proxy.black_hole("to_client")
            for _ in range(60):
                await a.cache.invalidate("item:a", *tags)
            a.data.versions["a"] += 1
            await a.cache.invalidate("item:a", *tags)
            dropped = "client_output_buffer_limit_disconnections"
            await eventually(lambda: redis_server.info("stats")[dropped] > 0, "a subscriber dropped")
            proxy.heal()
            await eventually(lambda: agreed(a, b), "the purge", seconds=10)
            await never_stale([a, b], 1)


async def test_a_failover_that_loses_the_last_purge_opens_a_new_term() -> None:
    """The new primary has never heard of a purge that was acknowledged; who had read it and who had not both reset."""
    with replicated() as pair, tcp_proxy(pair.address.port) as proxy:
        async with fleet(pair.url, 1, **QUICK) as (a,), fleet(proxy.url, 1, data=a.data, **QUICK) as (b,):
            await asyncio.gather(a.in_touch(), b.in_touch())
            await eventually(lambda: agreed(a, b), "one term")
            await filled_everywhere(a, b)
            term = a.statistics.term
            await asyncio.to_thread(pair.cut)
            proxy.black_hole()
            await written(a)
            assert a.statistics.applied > b.statistics.applied
            await asyncio.to_thread(pair.promote)
            proxy.heal()
            await eventually(lambda: agreed(a, b) and a.statistics.term > term, "the new term")
            await never_stale([a, b], 1)
            await written(b)
            await eventually(lambda: agreed(a, b), "the purge")
            await never_stale([a, b], 2)


async def test_a_term_is_told_apart_by_its_nonce(redis_server: Valkey) -> None:
    """Two lives of the log with the same number, term 1 after a restart without data, are not taken for one."""
    async with two(redis_server) as (a, b, proxy):
        await filled_everywhere(a, b)
        proxy.black_hole()
        await a.cache.stop()
        redis_server.execute("FLUSHALL")
        # It knows nothing of the earlier life: the server's first term is 1 again.
        async with joining(redis_server.url, a.data, **QUICK) as c:
            assert c.statistics.term == 1
            await written(c)
            proxy.heal()
            await eventually(lambda: agreed(b, c), "one place of the log")
            assert c.statistics.term == 2
            await never_stale([b, c], 1)


def subscribers(server: Valkey) -> int:
    """How many are subscribed to the log."""
    return int(server.execute("PUBSUB", "NUMSUB", "{cacheinval}:purges")[1])


async def test_a_cache_that_is_stopped_while_it_subscribes_again_does_stop(redis_server: Valkey) -> None:
    """Whatever its tasks are at when they are cancelled, they end; no connection is left behind."""
    for moment in range(12):
        async with fleet(redis_server.url, 2, staleness_bound=30) as (a, _):
            redis_server.execute("CLIENT", "KILL", "TYPE", "pubsub")
            for _ in range(moment):
                await asyncio.sleep(0)
            await a.cache.invalidate("item:a")
            began = time.monotonic()
        assert time.monotonic() - began < 5
    await eventually(lambda: subscribers(redis_server) == 0, "nobody subscribed")
