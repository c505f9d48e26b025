"""A call that is cancelled while its connection goes back into the pool loses none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import BlockingConnectionPool, Redis

from fastapi_cacheinval.connections.client import Client
from fastapi_cacheinval.connections.lane import MOST_CONNECTIONS
from fastapi_cacheinval.connections.urls import by_client, by_url
from tests.helpers.fleet import PATIENCE, eventually
from tests.servers import Valkey

pytestmark = pytest.mark.anyio


def _client(server: Valkey, kind: str) -> Client:
    if kind == "url":
        return by_url(server.url, PATIENCE, 2**20)()
    pool = BlockingConnectionPool(port=server.port, max_connections=MOST_CONNECTIONS)
    return by_client(Redis(connection_pool=pool), PATIENCE, 2**20)()


def _lock(pool: Any) -> asyncio.Lock:
    """What redis-py holds while it puts a connection back, and while it closes one; its oldest releases hold none."""
    condition = getattr(pool, "_condition", None)
    found: asyncio.Lock | None = getattr(pool, "_lock", None) if condition is None else condition._lock
    return asyncio.Lock() if found is None else found


@pytest.mark.parametrize("kind", ["url", "blocking"])
async def test_a_call_that_is_cancelled_while_its_connection_goes_back_loses_none(
    redis_server: Valkey, kind: str
) -> None:
    """As many are there as before, for calls and for a subscription."""
    client = _client(redis_server, kind)
    pool = client.client.connection_pool
    try:
        await client.command("SET", b"key", b"value", "EX", 60)
        calls = [asyncio.create_task(client.command("BLPOP", b"list", 0)) for _ in range(MOST_CONNECTIONS)]
        await eventually(
            lambda: redis_server.info("clients")["blocked_clients"] == MOST_CONNECTIONS, "calls that are under way"
        )
        lock = _lock(pool)
        async with lock:
            redis_server.execute("RPUSH", "list", *range(MOST_CONNECTIONS))
            await eventually(
                lambda: len(lock._waiters or ()) + sum(call.done() for call in calls) == MOST_CONNECTIONS,
                "connections on their way back",
            )
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        await eventually(lambda: not len(pool._in_use_connections), "the connections")
        again = [client.command("GET", b"key") for _ in range(2 * MOST_CONNECTIONS)]
        assert set(await asyncio.gather(*again)) == {b"value"}
        assert redis_server.info("clients")["connected_clients"] <= MOST_CONNECTIONS + 2
    finally:
        await client.close()


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
