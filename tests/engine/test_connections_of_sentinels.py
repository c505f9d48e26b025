"""Connections by way of Sentinels: a primary that was replaced, a Sentinel that does not know, one that is silent."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

import pytest
from redis.asyncio.sentinel import Sentinel

from tests.engine.calls import all_are_done, all_is_well
from tests.helpers.fleet import CALM, PATIENT, QUICK, eventually, fleet
from tests.servers import Sentinels, Valkey, sentinels, valkey

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def watched() -> Generator[Sentinels]:
    """A primary with a replica, and three Sentinels; tests exchange the two."""
    with sentinels(replicas=1) as made:
        yield made


def url_of(topology: Sentinels, *first: Valkey) -> str:
    """A URL with these Sentinels first."""
    ports = [*(server.port for server in first), *(port for _, port in topology.addresses)]
    return f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in ports)}/{topology.name}/0"


def exchanged(topology: Sentinels) -> None:
    """Have the Sentinels make the replica the primary, while the event loop stands still; the old one goes on then."""
    before = topology.primary
    before.pause()
    topology.wait_for_another_than(before)
    before.resume()


@pytest.mark.parametrize("by", ["url", "client"])
async def test_a_primary_that_was_replaced_costs_no_mutation(watched: Sentinels, by: str) -> None:
    """Its connections answer READONLY or are closed: the new one is asked for within the same calls."""
    if by == "url":
        async with fleet(url_of(watched), 1, **PATIENT) as (node,):
            await all_is_well(node)
            exchanged(watched)
            await all_are_done(node)
        return
    sentinel = Sentinel(watched.addresses)
    client = sentinel.master_for(watched.name)
    try:
        async with fleet(client, 1, **PATIENT) as (node,):
            await all_is_well(node)
            exchanged(watched)
            await all_are_done(node)
    finally:
        await client.aclose()
        for each in sentinel.sentinels:
            await each.aclose()


async def test_a_sentinel_that_is_cut_off_from_the_others_is_not_asked_twice(watched: Sentinels) -> None:
    """It names the old primary, which refuses: the next Sentinel is asked within the same call."""
    with valkey(sentinel=True) as lone:
        lone.execute("SENTINEL", "MONITOR", watched.name, "127.0.0.1", watched.primary.port, 5)
        lone.execute("SENTINEL", "SET", watched.name, "down-after-milliseconds", 600_000)
        async with fleet(url_of(watched, lone), 1, **CALM) as (node,):
            await all_is_well(node)
            lone.pause()
            exchanged(watched)
            lone.resume()
            await all_are_done(node)


async def test_a_primary_that_has_lost_its_replicas_is_left_for_the_new_one(watched: Sentinels) -> None:
    """NOREPLICAS from the old primary, which still runs as one: the Sentinels are asked anew at once."""
    old = watched.primary
    async with fleet(url_of(watched), 1, **CALM) as (node,):
        await all_is_well(node)
        with old.configured(min_replicas_to_write=1):
            exchanged(watched)
            # As a partition leaves it: a primary that nobody replicates from.
            old.execute("REPLICAOF", "NO", "ONE")
            await all_are_done(node)


async def test_silent_sentinels_cost_a_start_nothing_but_time(watched: Sentinels) -> None:
    """Two of three stand still: the third names the primary before the start gives up."""
    silent = watched.sentinels[:2]
    for sentinel in silent:
        sentinel.pause()
    try:
        async with fleet(url_of(watched), 1, **QUICK) as (node,):
            await node.in_touch()
    finally:
        for sentinel in silent:
            sentinel.resume()
    await eventually(lambda: len(watched._named()) == 1, "the Sentinels agree")
    await asyncio.sleep(0)
