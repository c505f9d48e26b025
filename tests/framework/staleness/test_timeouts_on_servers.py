"""`soft_timeout` and `hard_timeout` under uvicorn: what a client has on its connection while the handler is slow."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from fastapi import FastAPI

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from fastapi_cacheinval.testing import FakeClock
from tests.helpers.http import until
from tests.uvicorn.serving import Counting, serving

pytestmark = pytest.mark.anyio

RULE: dict[str, Any] = {"ttl": 60, "jitter": 0, "stale_if_error": 600}
SERVERS = ["h11", "httptools", Counting]


class Slow:
    """An app with a handler that waits at a gate, and counts its calls and how they end."""

    def __init__(self, **policy: Any) -> None:
        self.clock = FakeClock()
        self.cache = HTTPCache(clock=self.clock)
        self.app = FastAPI()
        self.app.add_middleware(CacheMiddleware, cache=self.cache)
        self.gate = asyncio.Event()
        self.gate.set()
        self.calls, self.returned, self.cancelled = 0, 0, 0

        @self.app.get("/", dependencies=[cached(**{**RULE, **policy})])
        async def read() -> int:
            self.calls += 1
            count = self.calls
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            self.returned += 1
            return count

    async def stored(self, times: int) -> None:
        await until(lambda: self.returned == times and self.cache.statistics().forwards_under_way == 0)


@pytest.fixture(params=SERVERS, ids=["h11", "httptools", "the cache protocol"])
def server(request: Any) -> Any:
    return request.param


async def test_with_a_stale_copy_a_slow_handler_gives_way_to_it(server: Any) -> None:
    """Its connection takes the next request meanwhile; the one handler goes on, and what it answers is stored."""
    slow = Slow(soft_timeout=1, hard_timeout=3)
    async with serving(slow.app, http=server) as site:
        first, second = await site.connect(), await site.connect()
        assert (await first.ask("/")).endswith(b"\r\n\r\n1")
        slow.clock.tick(100)
        slow.gate.clear()
        asking = [asyncio.create_task(each.ask("/")) for each in (first, second)]
        await until(lambda: slow.calls == 2 and slow.cache.statistics().waiting == 1)
        slow.clock.tick(0.9)
        assert not any(each.done() for each in asking)
        slow.clock.tick(0.2)
        for answer in await asyncio.gather(*asking):
            assert answer.startswith(b"HTTP/1.1 200")
            assert answer.endswith(b"\r\n\r\n1")
            assert b"detail=slow" in answer
        # The handler still runs, and the connection of its client is free.
        again = asyncio.create_task(first.ask("/"))
        await until(lambda: slow.cache.statistics().waiting == 1 or again.done())
        slow.clock.tick(1.1)
        assert (await again).endswith(b"\r\n\r\n1")
        assert slow.returned == 1
        slow.gate.set()
        await slow.stored(2)
        answer = await second.ask("/")
        assert answer.endswith(b"\r\n\r\n2")
        assert b"cacheinval; hit" in answer
    assert (slow.calls, slow.cancelled) == (2, 0)


async def test_without_a_stale_copy_there_is_a_504_at_the_hard_timeout(server: Any) -> None:
    """At the soft one there is nothing; the connection stays, and the late answer is stored."""
    slow = Slow(soft_timeout=1, hard_timeout=3)
    slow.gate.clear()
    async with serving(slow.app, http=server) as site:
        first, second = await site.connect(), await site.connect()
        asking = [asyncio.create_task(each.ask("/")) for each in (first, second)]
        await until(lambda: slow.calls == 1 and slow.cache.statistics().waiting == 1)
        slow.clock.tick(2.9)
        await asyncio.sleep(0)
        assert not any(each.done() for each in asking)
        slow.clock.tick(0.2)
        for answer in await asyncio.gather(*asking):
            assert answer.startswith(b"HTTP/1.1 504")
            assert answer.endswith(b"\r\n\r\n")
        slow.gate.set()
        await slow.stored(1)
        for each in (first, second):
            answer = await each.ask("/")
            assert answer.endswith(b"\r\n\r\n1")
            assert b"cacheinval; hit" in answer
    assert (slow.calls, slow.cancelled) == (1, 0)


@pytest.mark.parametrize("copy", [False, True], ids=["nothing stored", "a stale copy"])
async def test_a_client_that_has_gone_before_the_timeout_costs_the_others_nothing(
    server: Any,
    copy: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever waits beside it has the answer of the timeout, the handler runs once, and nothing is logged about it."""
    slow = Slow(soft_timeout=1, hard_timeout=3)
    async with serving(slow.app, http=server) as site:
        if copy:
            await (await site.connect()).ask("/")
            slow.clock.tick(100)
        before = slow.calls
        slow.gate.clear()
        gone, stays = await site.connect(), await site.connect()
        gone.writer.write(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        await until(lambda: slow.calls == before + 1)
        waiting = asyncio.create_task(stays.ask("/"))
        await until(lambda: slow.cache.statistics().waiting == 1)
        connections = len(site.server.server_state.connections)
        gone.writer.close()
        await gone.writer.wait_closed()
        await until(lambda: len(site.server.server_state.connections) == connections - 1)
        slow.clock.tick(3.1)
        answer = await waiting
        assert answer.startswith(b"HTTP/1.1 200" if copy else b"HTTP/1.1 504")
        slow.gate.set()
        await slow.stored(before + 1)
        assert b"cacheinval; hit" in await stays.ask("/")
    assert (slow.calls, slow.cancelled) == (before + 1, 0)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_client_that_goes_with_the_answer_of_the_timeout_does_not_end_the_handler(server: Any) -> None:
    """As one that asks for the end of its connection, and closes its side on the answer."""
    slow = Slow(soft_timeout=None, hard_timeout=3)
    slow.gate.clear()
    async with serving(slow.app, http=server) as site:
        goes = await site.connect()
        asking = asyncio.create_task(goes.ask("/", "Connection: close"))
        await until(lambda: slow.calls == 1)
        slow.clock.tick(3.1)
        assert (await asking).startswith(b"HTTP/1.1 504")
        assert await goes.ended()
        goes.writer.close()
        await goes.writer.wait_closed()
        await until(lambda: not site.server.server_state.connections)
        slow.gate.set()
        await slow.stored(1)
        assert b"cacheinval; hit" in await (await site.connect()).ask("/")
    assert (slow.calls, slow.cancelled) == (1, 0)
