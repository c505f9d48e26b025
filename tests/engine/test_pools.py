"""Connections go back into their pool, also those of calls that are cancelled."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import pytest
from redis.asyncio import BlockingConnectionPool, Redis

from fastapi_cacheinval.connections.client import Client, Script
from fastapi_cacheinval.connections.lane import MOST_CONNECTIONS
from fastapi_cacheinval.connections.urls import by_client, by_url
from tests.engine.calls import connections
from tests.helpers.fleet import PATIENCE, eventually
from tests.servers import Valkey

pytestmark = pytest.mark.anyio


every_kind = pytest.mark.parametrize("kind", ["url", "client", "blocking"])


def _client(server: Valkey, kind: str) -> Client:
    if kind == "url":
        return by_url(server.url, PATIENCE, 2**20)()
    given = Redis(port=server.port)
    if kind == "blocking":
        given = Redis(connection_pool=BlockingConnectionPool(port=server.port, max_connections=MOST_CONNECTIONS))
    return by_client(given, PATIENCE, 2**20)()


def _lock(pool: Any) -> asyncio.Lock:
    """What redis-py holds while it puts a connection back, and while it closes one; its oldest releases hold none."""
    condition = getattr(pool, "_condition", None)
    found: asyncio.Lock | None = getattr(pool, "_lock", None) if condition is None else condition._lock
    return asyncio.Lock() if found is None else found


@every_kind
async def test_a_call_that_is_cancelled_while_its_connection_goes_back_loses_none(
    redis_server: Valkey, kind: str
) -> None:
    """As many are there as before."""
    client = _client(redis_server, kind)
    try:
        await client.command("SET", b"key", b"value", "EX", 60)
        calls = [asyncio.create_task(client.command("BLPOP", b"list", 0)) for _ in range(MOST_CONNECTIONS)]
        await eventually(
            lambda: redis_server.info("clients")["blocked_clients"] == MOST_CONNECTIONS, "calls that are under way"
        )
        lock = _lock(client.client.connection_pool)
        async with lock:
            redis_server.execute("RPUSH", "list", *range(MOST_CONNECTIONS))
            await eventually(
                lambda: len(lock._waiters or ()) + sum(call.done() for call in calls) == MOST_CONNECTIONS,
                "connections on their way back",
            )
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        again = [client.command("GET", b"key") for _ in range(2 * MOST_CONNECTIONS)]
        assert set(await asyncio.gather(*again)) == {b"value"}
        assert connections(redis_server) <= MOST_CONNECTIONS
    finally:
        await client.close()


@every_kind
async def test_calls_that_are_cancelled_at_any_step_lose_no_connection(redis_server: Valkey, kind: str) -> None:
    """Each round drops the connections and cancels all calls some steps later, most of them as theirs comes back."""
    client, script, turns = _client(redis_server, kind), Script("return redis.call('GET', KEYS[1])"), count()

    async def ask() -> Any:
        # A script takes a connection by itself, a command has the client take one.
        return await (client.script(script, (b"it",), ()) if next(turns) % 2 else client.command("GET", b"it"))

    for steps in range(60):
        await asyncio.gather(*(ask() for _ in range(MOST_CONNECTIONS)))
        calls = [asyncio.create_task(ask()) for _ in range(MOST_CONNECTIONS)]
        for _ in range(steps // 10):
            await asyncio.sleep(0)
        await client._topology.renew("")
        for _ in range(steps % 10):
            await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    assert await asyncio.gather(*(ask() for _ in range(64))) == [None] * 64
    assert connections(redis_server) <= MOST_CONNECTIONS
    await client.close()
    await eventually(lambda: connections(redis_server) == 0, "the end of all connections")


async def test_a_connection_that_is_lost_all_the_same_takes_nobodys_place(redis_server: Valkey) -> None:
    """Nothing is refused for want of a connection: the lane keeps the number of calls."""
    client = _client(redis_server, "url")
    pool = client.client.connection_pool
    try:
        # Held, as whatever has lost them may hold them.
        lost = [pool.make_connection() for _ in range(2 * MOST_CONNECTIONS)]
        for connection in lost:
            pool._in_use_connections.add(connection)
        assert await client.command("ECHO", b"hello") == b"hello"
    finally:
        await client.close()
