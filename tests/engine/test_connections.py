"""Connections: many calls at once, connections that were closed while idle, half-open ones, and a restart."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import BlockingConnectionPool, Redis

from tests.engine.calls import all_is_well, connections, details, mutated, read
from tests.helpers.fleet import CALM, PATIENT, eventually, fleet
from tests.servers import Valkey, tcp_proxy

pytestmark = pytest.mark.anyio

SOURCES: dict[str, Callable[[Valkey], Any]] = {
    "url": lambda server: server.url,
    "url-max": lambda server: f"{server.url}?max_connections=1",
    "socket": lambda server: server.unix_url,
    "resp3": lambda server: server.url_for(protocol=3),
    "client": lambda server: Redis(port=server.port),
    "client-max": lambda server: Redis(port=server.port, max_connections=2),
    "blocking": lambda server: Redis(connection_pool=BlockingConnectionPool(port=server.port, max_connections=1)),
    "single": lambda server: Redis(port=server.port, single_connection_client=True),
}
every_source = pytest.mark.parametrize("source", SOURCES)


@every_source
async def test_two_hundred_mutations_at_once_are_all_done(redis_server: Valkey, source: str) -> None:
    """The calls of one replica wait for each other; none is refused because the others are there."""
    async with fleet(SOURCES[source](redis_server), 1, **CALM) as (node,):
        assert await mutated(node, 200) == {"done": 200}


@every_source
async def test_two_hundred_cold_keys_at_once_are_all_shared(redis_server: Valkey, source: str) -> None:
    """Each is looked for, locked and written in L2, and another replica finds all of them there."""
    # A machine that is busy with something else is no Redis that is silent.
    async with fleet(SOURCES[source](redis_server), 1, **PATIENT) as (node,):
        assert details(await read(node, range(200))) == {None: 200}
        await node.written(200)
        assert node.l2("unavailable") == 0
        async with fleet(redis_server.url, 1, data=node.data, first=1, **PATIENT) as (other,):
            await read(other, range(200))
            assert node.data.forwards == 200


@every_source
async def test_connections_that_are_killed_while_idle_cost_nothing(redis_server: Valkey, source: str) -> None:
    """After `CLIENT KILL TYPE normal` each call goes over a fresh connection."""
    async with fleet(SOURCES[source](redis_server), 1, **CALM) as (node,):
        for _ in range(2):
            await all_is_well(node)
            redis_server.execute("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await all_is_well(node)


@every_source
async def test_connections_that_the_server_closes_when_idle_cost_nothing(redis_server: Valkey, source: str) -> None:
    """`timeout 1` closes what was opened in a burst, and no heartbeat keeps it open."""
    async with fleet(SOURCES[source](redis_server), 1, **CALM) as (node,):
        await all_is_well(node)
        with redis_server.configured(timeout=1):
            await eventually(lambda: connections(redis_server) == 0, "the end of all idle connections")
        await all_is_well(node)


@every_source
async def test_a_restart_costs_no_mutation(redis_server: Valkey, source: str) -> None:
    """A server that is back, with its data or without, is found by fresh connections; nobody is told of an outage."""
    async with fleet(SOURCES[source](redis_server), 1, **CALM) as (node,):
        for empty in (True, False):
            await all_is_well(node)
            # Nothing runs in between: the loop stands still, and finds all connections closed.
            redis_server.restart(empty=empty)
            await all_is_well(node)


async def test_half_open_connections_are_given_up_for_fresh_ones(redis_server: Valkey) -> None:
    """Something in between has forgotten them without a word: silence there is no outage where a fresh one answers."""
    with tcp_proxy(redis_server.port) as proxy:
        # A busy machine may take half a second to connect.
        async with fleet(proxy.url, 1, staleness_bound=30.0, redis_timeout=2.0) as (node,):
            await all_is_well(node)
            proxy.forget()
            await all_is_well(node)


async def test_a_loop_that_stands_still_is_no_outage(redis_server: Valkey, caplog: Any) -> None:
    """A handler that blocks the event loop for longer than `redis_timeout`: answers that came meanwhile are read."""
    with caplog.at_level(logging.WARNING, "fastapi_cacheinval"):
        async with fleet(redis_server.url, 1, staleness_bound=30.0, redis_timeout=0.2) as (node,):
            for _ in range(5):
                calls = [node.call(f"/items/{number}", method="PUT") for number in range(20)]
                await asyncio.sleep(0)
                time.sleep(0.3)  # noqa: ASYNC251 - the loop is to stand still
                assert {(await call.answer()).headers["cacheinval-purge"] for call in calls} == {"done"}
    assert caplog.records == []


async def test_a_server_that_is_gone_is_told_to_all_who_wait(redis_server: Valkey) -> None:
    """Two hundred mutations at a silent server take the time of one, not of each in its turn; all are queued."""
    with tcp_proxy(redis_server.port) as proxy:
        async with fleet(proxy.url, 1, staleness_bound=30.0, redis_timeout=0.5) as (node,):
            await all_is_well(node)
            proxy.black_hole()
            began = time.monotonic()
            assert await mutated(node, 200) == {"queued": 200}
            assert time.monotonic() - began < 4
            proxy.heal()
            await eventually(lambda: not node.statistics.queue_length, "all numbers")
