"""Strings of a reply that are longer than any replica writes: they are passed over, and nothing else is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from fastapi_cacheinval.connections.client import Client, Script
from fastapi_cacheinval.connections.urls import by_client, by_url
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.fleet import fleet, joining
from tests.servers import Valkey

pytestmark = pytest.mark.anyio

MOST = 100_000
SOURCES: dict[str, Callable[[Valkey], Any]] = {
    "url": lambda server: by_url(server.url, 5.0, MOST),
    "socket": lambda server: by_url(server.unix_url, 5.0, MOST),
    "resp2": lambda server: by_url(server.url_for(protocol=2), 5.0, MOST),
    "resp3": lambda server: by_url(server.url_for(protocol=3), 5.0, MOST),
    "client": lambda server: by_client(Redis(port=server.port), 5.0, MOST),
}
every_source = pytest.mark.parametrize("source", SOURCES)
# Beside the bound, and so long that it comes in many pieces.
LENGTHS = [0, 1, MOST - 1, MOST, MOST + 1, MOST + 2, 3_000_000]


@asynccontextmanager
async def client_of(server: Valkey, source: str) -> AsyncIterator[Client]:
    client = SOURCES[source](server)()
    try:
        yield client
    finally:
        await client.close()


@every_source
async def test_a_message_that_is_too_long_is_cut(redis_server: Valkey, source: str) -> None:
    """Those before and after it come whole, in their order, over the same subscription."""
    async with client_of(redis_server, source) as client:
        messages: Any = client.messages(b"channel", quiet=30.0)
        assert await anext(messages) is None
        said = [b"x" * length for length in LENGTHS] * 2
        async with Redis(port=redis_server.port) as publisher:
            for message in said:
                await publisher.publish("channel", message)
        heard = [await anext(messages) for _ in said]
        await messages.aclose()
    assert heard == [(b"channel", message if len(message) <= MOST else message[:8]) for message in said]


@every_source
async def test_a_string_in_a_reply_that_is_too_long_is_cut(redis_server: Valkey, source: str) -> None:
    """What stands beside it in the same reply is read as ever, and so is the next reply."""
    script = Script("return {'before', string.rep('x', ARGV[1]), 'between', string.rep('y', ARGV[1]), 7}")
    async with client_of(redis_server, source) as client:
        for length in LENGTHS:
            there = length if length <= MOST else 8
            read = await client.script(script, [b"key"], (length,))
            assert read == [b"before", b"x" * there, b"between", b"y" * there, 7]
        assert await client.command("GET", b"key") is None


async def test_who_gives_up_in_the_midst_of_a_long_message_reads_on_behind_it(redis_server: Valkey) -> None:
    """A subscription waits for its next message for a time, and then once more: half of a message may have come."""
    client = by_url(redis_server.url, 5.0, MOST)()
    pubsub = (await client._topology.subscriber()).pubsub()
    await pubsub.subscribe("channel")
    assert await pubsub.get_message(timeout=5) is not None
    async with Redis(port=redis_server.port) as publisher:
        await publisher.publish("channel", b"x" * 2_000_000)
        await publisher.publish("channel", b"next")
    stream = pubsub.connection._reader
    cancelled = 0
    found: list[Any] = []
    while len(found) < 2:
        reading = asyncio.create_task(pubsub.connection.read_response(disconnect_on_error=False, push_request=True))
        for _ in range(4):
            await asyncio.sleep(0)
        if not reading.done() and not stream._buffer:
            reading.cancel()
        try:
            found.append(await reading)
        except asyncio.CancelledError:
            cancelled += 1
    await pubsub.aclose()
    await client.close()
    assert cancelled
    assert [each[2] for each in found] == [b"xxxxxxxx", b"next"]


async def test_a_stored_value_that_is_too_long_is_a_miss(redis_server: Valkey) -> None:
    """It is not read, and who fills anew writes over it."""
    async with fleet(redis_server.url) as (a, b):
        await a.ask()
        await a.written()
        [key] = redis_server.execute("KEYS", "*:r")
        redis_server.execute("SET", key, b"x" * 20_000_000, "KEEPTTL")
        assert_miss(await b.ask())
        assert b.l2("unreadable-broken") == 1
        assert b.l2("unavailable") == 0
        await b.written()
        async with joining(redis_server.url, b.data) as c:
            assert_hit(await c.ask())
