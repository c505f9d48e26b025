"""`cacheinval top` shows the busiest routes of all replicas together, live on a terminal."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastapi_cacheinval import cached
from fastapi_cacheinval.bus.summary_codec import encode_summary
from fastapi_cacheinval.core.statistics import RouteStatistics
from tests.cli.calls import Terminal
from tests.cli.fleets import told, watched
from tests.core.test_doctor import replica
from tests.helpers.fleet import Node
from tests.servers import Valkey

pytestmark = pytest.mark.anyio


def _second_route(node: Node) -> None:
    @node.app.get("/quiet/{name}", dependencies=[cached(ttl=60)])
    async def read(name: str) -> str:
        return name


async def test_the_busiest_route_comes_first_with_what_the_cache_saves(redis_server: Valkey, cli: Any) -> None:
    """Requests of both replicas are summed."""
    async with watched(redis_server, routes=_second_route) as (one, two):
        await one.ask("/quiet/a")
        for node in (one, two):
            for _ in range(3):
                await node.ask()
            await one.written(2)
        await told(redis_server, one, two)
        data = (await cli("top", "--once", "--json")).json
        assert [(each["route"], each["hits"], each["misses"]) for each in data["routes"]] == [
            ("GET /items/{name}", 5, 1),
            ("GET /quiet/{name}", 0, 1),
        ]
        assert data["routes"][0]["per_second"] > data["routes"][1]["per_second"] > 0
        lines = (await cli("top", "--once")).out.splitlines()
        assert lines[0].startswith("cacheinval ")
        assert lines[2].split()[:3] == ["route", "req/s", "hits"]
        assert lines[3].startswith("GET /items/{name}")
        assert "83.3%" in lines[3]
        assert (await cli("top", "--once", "--limit", "1")).out.splitlines()[-1].startswith("and 1 more")


async def test_nothing_asked_yet_is_said(redis_server: Valkey, cli: Any) -> None:
    """Before any summary."""
    async with watched(redis_server, 1):
        assert "No cached route has been asked yet." in (await cli("top", "--once")).out


async def test_a_hundred_replicas_and_hostile_routes_fit_forty_columns(redis_server: Valkey, cli: Any) -> None:
    """Each with two dozen routes: no line is longer, and nothing reaches the terminal that it would obey."""
    async with watched(redis_server, 1):
        now = int(redis_server.execute("TIME")[0])
        pipeline = redis_server.client.pipeline()
        for pid in range(100):
            routes = {f"GET /\x1b[31m{pid}/{number}/{'long' * 20}": RouteStatistics(hits=1) for number in range(24)}
            summary = replica(pid, routes=routes).summary
            assert summary is not None
            pipeline.hset("{cacheinval}:acks", f"r{pid}", f"0 {now * 1_000_000} 60000000")
            pipeline.set(f"{{cacheinval}}:replica:r{pid}", encode_summary(summary), ex=60)
        pipeline.execute()
        shown = await cli("top", "--once", columns=40)
        assert shown.code == 0
        assert "\x1b" not in shown.out
        assert max(map(len, shown.out.splitlines())) <= 40
        assert len((await cli("top", "--once", "--json")).json["routes"]) == 2_400


@pytest.mark.timeout(120)
async def test_it_is_live_on_a_terminal_and_says_when_redis_is_away(redis_server: Valkey) -> None:
    """New figures replace the old ones; an outage is shown and ends by itself; Ctrl-C gives the terminal back."""
    async with watched(redis_server, 1) as (node,):
        await told(redis_server, node)
        env = {"CACHEINVAL_URL": redis_server.url}
        with Terminal("top", "--every", "0.2", "--timeout", "0.5", env=env) as terminal:
            await asyncio.to_thread(terminal.shows, "No cached route has been asked yet.")
            await node.ask()
            await told(redis_server, node)
            await asyncio.to_thread(terminal.shows, "GET /items/{name}")
            redis_server.pause()
            await asyncio.to_thread(terminal.shows, "cannot be used")
            redis_server.resume()
            terminal.interrupt()
            assert await asyncio.to_thread(terminal.end) == 130
        assert "\x1b[?1049h" in terminal.raw
        assert "\x1b[?1049l" in terminal.raw
        assert "Traceback" not in terminal.raw
