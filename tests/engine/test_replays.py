"""With a secret, what was written once is never younger than it is, whoever sets it again in Redis."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis
from fastapi import Response

from fastapi_cacheinval import cached
from tests.helpers.fleet import SECRET, Node, eventually, fleet
from tests.servers import Valkey

pytestmark = pytest.mark.anyio

LONG_MS = 100_000


def pages(node: Node) -> None:
    """A page that lives for a second, one that lives for a minute, both with variants."""
    for path, ttl in (("/second", 1), ("/minute", 60)):

        @node.app.get(path, dependencies=[cached(ttl=ttl, jitter=0, early_refresh=0)])
        async def read(response: Response) -> float:
            response.headers["vary"] = "accept-language"
            return time.time()


def everything(server: Valkey) -> dict[bytes, tuple[bytes, int]]:
    """All that is stored, with its remaining life in milliseconds."""
    with redis.Redis(port=server.port) as client:
        keys: Any = client.keys("*:r")
        found: dict[bytes, Any] = {key: (client.get(key), client.pttl(key)) for key in keys}
    return {key: (bytes(data), int(left)) for key, (data, left) in found.items() if data}


def set_again(server: Valkey, stored: dict[bytes, tuple[bytes, int]], life_ms: int | None) -> None:
    """Write all of it as it was, with another life or with the one that it had when it was read."""
    with redis.Redis(port=server.port) as client:
        for key, (data, left) in stored.items():
            client.set(key, data, px=left if life_ms is None else life_ms)


async def test_an_expired_value_that_is_set_again_is_not_served(redis_server: Valkey) -> None:
    """With the life that it had, a short one and a longer one, under a record of variants that is set again as well."""
    lives = (None, 500, LONG_MS)
    async with fleet(redis_server.url, 1 + len(lives), routes=pages, secret=SECRET) as (writer, *readers):
        first = await writer.ask("/second")
        await writer.written(1)
        stored = everything(redis_server)
        assert len(stored) == 2
        await eventually(lambda: not everything(redis_server), "the end of what was stored")
        for life_ms, reader in zip(lives, readers, strict=True):
            set_again(redis_server, stored, life_ms)
            assert (await reader.ask("/second")).body != first.body


async def test_a_value_that_is_set_again_while_it_lives_keeps_its_age(redis_server: Valkey) -> None:
    """It is served, since it is fresh, and says how old it is."""
    async with fleet(redis_server.url, 2, routes=pages, secret=SECRET) as (writer, reader):
        first = await writer.ask("/minute")
        await writer.written(1)
        await eventually(
            lambda: all(left < 58_500 for _, left in everything(redis_server).values()), "a second and a half of age"
        )
        set_again(redis_server, everything(redis_server), 60_000)
        answer = await reader.ask("/minute")
        assert answer.body == first.body
        assert 1 <= int(answer.headers["age"]) < 30
        assert reader.tier() == "l2"
