"""The replicas on the page, over a real server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.requests import Request

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.inspector.replicas import Replicas
from tests.helpers.http import scope_of
from tests.inspector.inspected import Inspected
from tests.servers import Valkey

pytestmark = pytest.mark.anyio


async def replicas_of(cache: HTTPCache) -> Any:
    """What the page is told now."""
    answer = await Replicas(cache).show(Request(scope_of("/")))
    return json.loads(bytes(answer.body))


async def test_a_cache_in_one_process_lists_itself() -> None:
    """Without a Redis there is one row, without an end of its lease."""
    inspected = Inspected()
    await inspected.shop.ask("/items/1")
    told = await inspected.json("/api/replicas")
    (row,) = told["replicas"]
    assert (row["here"], row["live"], row["lease"], row["lag"], row["requests"]) == (True, True, None, 0, 1)
    assert (told["why"], told["log"], told["more"]) == (None, None, 0)


async def test_each_replica_is_listed_with_its_lease(redis_server: Valkey) -> None:
    """This one first, as it is now; the others by what they leave in Redis."""
    first, second = (HTTPCache.from_url(redis_server.url, staleness_bound=1) for _ in range(2))
    await first.start()
    await second.start()
    await first.invalidate("a", wait="all")
    deadline = asyncio.get_running_loop().time() + 20
    while True:
        told = await replicas_of(first)
        if len(told["replicas"]) == 2 and "requests" in told["replicas"][1]:
            break
        assert asyncio.get_running_loop().time() < deadline, told
        await asyncio.sleep(0.05)
    await second.stop()
    await first.stop()
    here, other = told["replicas"]
    assert (here["here"], other["here"]) == (True, False)
    assert here["live"]
    assert other["live"]
    assert 0 < other["lease"] <= 1
    assert (here["applied"], other["applied"], other["lag"]) == (1, 1, 0)
    assert told["log"]["seq"] == 1


async def test_a_redis_that_is_away_is_told(redis_server: Valkey) -> None:
    """The page says why the others are not known now; this replica is still listed."""
    cache = HTTPCache.from_url(redis_server.url, staleness_bound=1)
    async with cache:
        redis_server.kill()
        told = await replicas_of(cache)
    assert told["why"]
    assert "password" not in told["why"]
    assert [row["here"] for row in told["replicas"]] == [True]


async def test_a_redis_that_needs_a_password_is_told_so(redis_server: Valkey) -> None:
    """Neither the page nor the log of the app repeats what the server says of its protocol."""
    redis_server.execute("CONFIG", "SET", "requirepass", "secret")
    try:
        async with HTTPCache.from_url(redis_server.url, staleness_bound=1) as cache:
            told = await replicas_of(cache)
    finally:
        redis_server.client.execute_command("AUTH", "secret")
        redis_server.execute("CONFIG", "SET", "requirepass", "")
    assert told["why"].rstrip(".") == "Authentication required"
