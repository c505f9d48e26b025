"""Processes that only publish: what a purge costs them, and that they read nothing of others."""

from __future__ import annotations

import asyncio
import logging

import pytest
import redis

from fastapi_cacheinval import HTTPCache
from tests.helpers.fleet import SECRET, eventually, fleet
from tests.servers import Valkey

pytestmark = pytest.mark.anyio


def calls(server: Valkey, *names: str) -> int:
    """How often a command ran."""
    stats = server.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in names)


async def test_a_purge_of_a_script_is_one_round_trip(redis_server: Valkey) -> None:
    """Without a start there is nothing else to ask, and one connection is made and closed."""
    cache = HTTPCache.from_url(redis_server.url, secret=SECRET)
    await cache.invalidate("first")
    redis_server.execute("CONFIG", "RESETSTAT")
    before = redis_server.info("stats")["total_connections_received"]
    receipt = await cache.invalidate("second")
    assert receipt.seq == 2
    assert calls(redis_server, "eval", "evalsha") == 1
    assert redis_server.info("stats")["total_connections_received"] - before == 1


async def test_a_started_publisher_asks_once_whether_the_log_is_there(redis_server: Valkey) -> None:
    """Beside its purge, for which that is not waited for; after that each purge is one round trip."""
    await HTTPCache.from_url(redis_server.url, secret=SECRET).invalidate("first")
    redis_server.execute("CONFIG", "RESETSTAT")
    async with HTTPCache.from_url(redis_server.url, secret=SECRET) as cache:
        for number in range(10):
            await cache.invalidate(f"item:{number}")
    assert calls(redis_server, "eval", "evalsha") == 11
    assert calls(redis_server, "subscribe") == 0


def test_a_loop_for_each_purge_works(redis_server: Valkey) -> None:
    """As a Celery task or a script may do it, started and not, and without a loop of its own."""
    cache = HTTPCache.from_url(redis_server.url, secret=SECRET)

    async def started() -> int:
        async with cache:
            return (await cache.invalidate("b")).seq

    async def plain() -> int:
        return (await cache.invalidate("a")).seq

    seqs = [
        seq for _ in range(3) for seq in (asyncio.run(plain()), asyncio.run(started()), cache.invalidate_sync("c").seq)
    ]
    assert seqs == list(range(1, 10))


async def test_a_publisher_reads_nothing_of_others(redis_server: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """However much was written since its last purge, its next one is short; it says nothing of it, and keeps nothing."""
    caplog.set_level(logging.INFO, "fastapi_cacheinval")
    async with fleet(redis_server.url, 1) as (a,), HTTPCache.from_url(redis_server.url, secret=SECRET) as cache:
        await cache.invalidate("one")
        resets = cache.statistics().resets
        for first in range(0, 20_000, 1_000):
            await a.cache.invalidate(*(f"other:{number}" for number in range(first, first + 1_000)))
        before = redis_server.info("stats")["total_net_output_bytes"]
        receipt = await cache.invalidate("two")
        await eventually(lambda: a.statistics.applied == receipt.seq, "the purge")
        assert redis_server.info("stats")["total_net_output_bytes"] - before < 50_000
        assert cache.statistics().resets == resets
        assert not [record for record in caplog.records if "given up" in record.getMessage()]
        assert not cache._core.engine.replica.cells


async def test_a_publisher_notices_that_the_log_has_lost_its_purge(redis_server: Valkey) -> None:
    """What it has written itself it has read: a server that does not have it opens a new term."""
    async with fleet(redis_server.url, 1) as (a,), HTTPCache.from_url(redis_server.url, secret=SECRET) as cache:
        with redis.Redis(port=redis_server.port) as client:
            await cache.invalidate("one")
            names = [f"{{cacheinval}}:{name}" for name in ("state", "log", "tags", "acks")]
            kept = {name: client.dump(name) for name in names}
            assert (await cache.invalidate("two")).seq == 2
            await eventually(lambda: a.statistics.applied == 2, "the purge")
            await a.cache.stop()
            for name, dump in kept.items():
                assert dump is not None
                client.restore(name, 0, dump, replace=True)
        receipt = await cache.invalidate("three")
        assert receipt.term == 2
        await a.cache.start()
