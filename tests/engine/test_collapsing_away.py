"""Collapsing without a lease: in each process one forward for each key and bound, whatever the page takes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import Response

from tests.helpers.fleet import Node, eventually, fleet
from tests.helpers.http import Answer, Call
from tests.servers import Valkey, tcp_proxy

pytestmark = pytest.mark.anyio

# Its clock stands. Waiting is never given up.
STILL: dict[str, Any] = {"staleness_bound": 9.0, "redis_timeout": 3.0, "collapse_timeout": 1000.0}
BOUND: float = STILL["staleness_bound"]
MODES: dict[str, dict[str, Any]] = {"policy": {}, "headers": {"honour_headers": True}}
every_mode = pytest.mark.parametrize("mode", MODES)


def routes(node: Node) -> None:
    """A page that says itself how long it may be kept, and its mutation."""

    @node.app.get("/page")
    async def page(response: Response) -> Any:
        response.headers["cache-control"] = "public, max-age=60"
        return await node.data.read(node.number, "page")

    @node.app.put("/page")
    async def write() -> None:
        node.data.versions["page"] += 1


@asynccontextmanager
async def without_a_lease(server: Valkey, mode: str) -> AsyncIterator[tuple[Node, str]]:
    """A replica whose lease is over and whose Redis is away, with a gate before its handlers; and the page's path."""
    with tcp_proxy(server.port) as proxy:
        given = {**STILL, "clocks": True, "middleware": MODES[mode], "routes": routes}
        async with fleet(proxy.url, 1, **given) as (node,):
            proxy.refuse()
            proxy.reset()
            node.clock.tick(BOUND + 1)
            await eventually(lambda: not node.statistics.connected, "the loss")
            node.data.gate = asyncio.Event()
            yield node, "/page" if mode == "headers" else "/items/a"
            node.data.gate.set()


async def begun(node: Node, path: str, count: int, condition: Callable[[], bool]) -> list[Call]:
    """So many requests, once they have come as far as the condition says."""
    calls = [node.call(path) for _ in range(count)]
    await eventually(condition, "the requests on their way")
    return calls


def waiting(node: Node) -> int:
    """How many wait for another's forward."""
    (runtime,) = node.cache._core.runtimes.values()
    return runtime.flights.waiting


async def answers(calls: list[Call]) -> list[Answer]:
    """All answers, each with a 200."""
    found = [await call.answer() for call in calls]
    assert {answer.status_code for answer in found} == {200}
    return found


@every_mode
async def test_a_page_that_takes_longer_than_the_bound_is_made_once(redis_server: Valkey, mode: str) -> None:
    """Forty clients, of whom most come while it is made: one call, and all have its answer."""
    async with without_a_lease(redis_server, mode) as (node, path):
        calls = await begun(node, path, 20, lambda: waiting(node) == 19)
        node.clock.tick(BOUND - 0.5)
        calls += await begun(node, path, 20, lambda: waiting(node) == 39)
        node.clock.tick(5 * BOUND)
        assert node.data.gate is not None
        node.data.gate.set()
        found = await answers(calls)
        assert node.data.forwards == 1
        assert len({answer.body for answer in found}) == 1


@every_mode
async def test_who_comes_a_bound_later_waits_for_the_next_forward(redis_server: Valkey, mode: str) -> None:
    """Three crowds, each a bound after the last: three calls, side by side, and nobody has an older page than that."""
    async with without_a_lease(redis_server, mode) as (node, path):
        crowds: list[list[Call]] = []
        for number in range(3):
            crowds.append([node.call(path) for _ in range(10)])
            await eventually(lambda number=number: node.data.forwards == number + 1, "the leader")  # type: ignore[misc]
            await eventually(lambda number=number: waiting(node) == 9 * (number + 1), "the crowd")  # type: ignore[misc]
            node.data.versions["a"] += 1
            node.data.versions["page"] += 1
            node.clock.tick(BOUND)
        assert node.data.gate is not None
        node.data.gate.set()
        for number, calls in enumerate(crowds):
            for answer in await answers(calls):
                assert json.loads(answer.body)["version"] >= number, answer
        assert node.data.forwards == 3


@every_mode
async def test_what_was_kept_without_a_lease_is_no_hit_for_who_comes_later(redis_server: Valkey, mode: str) -> None:
    """The response of a long fill is good for those who waited; the next client has one of its own."""
    async with without_a_lease(redis_server, mode) as (node, path):
        calls = await begun(node, path, 5, lambda: waiting(node) == 4)
        node.clock.tick(BOUND)
        assert node.data.gate is not None
        node.data.gate.set()
        first = (await answers(calls))[0]
        assert first.cache is not None
        assert first.cache.detail == "disconnected"
        assert not first.cache.stored
        await node.ask(path)
        assert node.data.forwards == 2


@every_mode
async def test_an_own_write_while_the_page_is_made_is_seen_by_all(redis_server: Valkey, mode: str) -> None:
    """Nobody but its own client is handed what was read before; those who waited share one more call."""
    async with without_a_lease(redis_server, mode) as (node, path):
        calls = await begun(node, path, 20, lambda: waiting(node) == 19)
        node.clock.tick(BOUND + 1)
        answer = await node.ask(path, method="PUT")
        assert answer.headers["cacheinval-purge"] == "queued"
        assert node.data.gate is not None
        node.data.gate.set()
        later = await node.ask(path)
        assert '"version":1' in later.body.decode()
        found = await answers(calls)
        old = [answer for answer in found if '"version":0' in answer.body.decode()]
        assert len(old) == 1
