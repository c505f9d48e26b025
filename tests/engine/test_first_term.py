"""`wait="all"` in the first term of a log: no waiting for leases that nobody can have, and no skipping of others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import Any

import pytest

from fastapi_cacheinval import HTTPCache
from tests.helpers.fleet import SECRET, fleet
from tests.servers import Valkey, tcp_proxy, until, valkey

pytestmark = pytest.mark.anyio

BOUND = 3.0
OPTIONS: dict[str, Any] = {"staleness_bound": BOUND, "redis_timeout": 1.0}


@pytest.fixture
def fresh() -> Generator[Valkey]:
    """A server that has run for longer than a lease, and that nobody has written to."""
    with valkey() as server:
        until(lambda: int(server.info("server")["uptime_in_seconds"]) >= BOUND + 2, "an older server")
        yield server


async def waited(server: Valkey) -> tuple[float, str | None]:
    """For how long the first purge of a first term waits for all, and why."""
    async with fleet(server.url, 2, **OPTIONS) as (a, b):
        await asyncio.gather(a.in_touch(), b.in_touch())
        assert a.statistics.term == 1
        receipt = await a.cache.invalidate("item:a", wait="all")
        assert receipt.replicas == 2
        assert b.statistics.applied == receipt.seq
        assert receipt.seconds is not None
        return receipt.seconds, receipt.reason


async def test_on_a_server_without_a_past_nobody_is_waited_for(fresh: Valkey) -> None:
    """It has run for longer than any lease, and had no data: there was no term before."""
    seconds, reason = await waited(fresh)
    assert reason is None
    assert seconds < BOUND / 3


async def test_a_replica_that_comes_from_another_server_is_waited_for(fresh: Valkey, redis_server: Valkey) -> None:
    """The server has no past, but the replica has: others may hold leases of the log that it knows."""
    with tcp_proxy(redis_server.port) as proxy:
        async with fleet(proxy.url, 1, **OPTIONS) as (a,):
            await a.in_touch()
            proxy.target = fresh.port
            proxy.reset()
            receipt = await a.cache.invalidate("item:a", wait="all")
            assert receipt.reason == "new-term"


@pytest.mark.parametrize("what", ["a write", "FLUSHALL", "SAVE", "a log that was deleted", "a restart", "a replica"])
async def test_a_server_with_a_past_may_have_had_a_log(fresh: Valkey, what: str) -> None:
    """The call waits out the leases that may be there, and says so."""
    if what == "a write":
        fresh.execute("SET", "theirs", 1)
        fresh.execute("DEL", "theirs")
    elif what == "a log that was deleted":
        async with HTTPCache.from_url(fresh.url, secret=SECRET) as cache:
            await cache.invalidate("it")
        fresh.execute("DEL", *fresh.execute("KEYS", "*"))
    elif what == "a restart":
        fresh.restart()
    elif what == "a replica":
        fresh.execute("REPLICAOF", "127.0.0.1", 1)
        fresh.execute("REPLICAOF", "NO", "ONE")
    else:
        fresh.execute("SET", "theirs", 1)
        fresh.execute(what)
        fresh.execute("FLUSHALL")
    began = time.monotonic()
    _, reason = await waited(fresh)
    assert reason == "new-term"
    assert time.monotonic() - began >= BOUND * 0.9
