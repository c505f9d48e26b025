"""`confirm_replicas`: two primaries at once, of which only the one with a majority of the servers is believed."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from fastapi_cacheinval import PurgeNotDelivered
from tests.engine.asking import Asking
from tests.helpers.fleet import CALM, PATIENCE, Data, Node, eventually, fleet, joining, of_age
from tests.helpers.trouble import QUICK
from tests.servers import Group, Proxy, Valkey, cluster, group, tcp_proxy

pytestmark = pytest.mark.anyio

BOUND: float = QUICK["staleness_bound"]
_TRIES = 3
# As the docs recommend where nothing is confirmed.
LONELY: dict[str, Any] = {"min-replicas-to-write": 1, "min-replicas-max-lag": 2}


async def version(node: Node) -> int:
    """Of what it answers."""
    return int(json.loads((await node.ask()).body)["version"])


@dataclass
class Sides:
    """Servers, and a replica of the app for each side of a partition: `left` stays, the way of `right` can be led."""

    servers: Group
    left: Node
    right: Node
    way: Proxy

    def lead(self, to: Valkey) -> None:
        """Have the right side use another server."""
        self.way.target = to.port
        self.way.reset()

    async def promote(self, number: int) -> Valkey:
        """Part a server from the primary, make it another one, and lead the right side there."""
        new = self.servers.part(number)
        await asyncio.to_thread(new.execute, "REPLICAOF", "NO", "ONE")
        self.lead(new)
        return new

    async def move(self, number: int, to: Valkey) -> None:
        """Have a server leave the first primary, which does not hear of it, and follow another."""
        server = self.servers.part(number)
        await asyncio.to_thread(self.servers.follow, server, to)


@asynccontextmanager
async def sides(replicas: int, config: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Sides]:
    """A primary with so many replicas, and both sides in touch with it."""
    with group(replicas, config) as servers, tcp_proxy(servers.servers[0].port) as way:
        data = Data()
        given = {**QUICK, **options}
        async with (
            joining(servers.servers[0].url, data, 1, **given) as left,
            joining(way.url, data, 2, **given) as right,
        ):
            await left.in_touch()
            await right.in_touch()
            yield Sides(servers, left, right, way)


async def outdated_no_longer(node: Node) -> None:
    """Wait until it gives version 1."""
    deadline = time.monotonic() + PATIENCE
    while await version(node) == 0:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def worst_of(each: Sides, *, seconds: float) -> float:
    """Write on the right; the longest after its answer at which the left gave the old version, in seconds."""
    deadline = time.monotonic() + PATIENCE
    # On a machine that is busy a confirmation may come too late, and is asked for again.
    while (await each.right.ask(method="PUT")).headers["cacheinval-purge"] != "done":
        assert time.monotonic() < deadline
    done, worst = time.monotonic(), 0.0
    while (began := time.monotonic()) < done + seconds:
        if await version(each.left) == 0:
            worst = began - done
        await asyncio.sleep(0.01)
    return worst


@pytest.mark.parametrize("confirm_replicas", [0, 1])
async def test_a_primary_whose_replica_has_gone_over_renews_no_lease(confirm_replicas: int) -> None:
    """It does not know yet that it is alone: `min-replicas-to-write` exceeds the bound there, a confirmation does not."""
    # On a machine that is busy a replica may lose its lease before it can show what is wrong.
    worst = 0.0
    for _ in range(1 if confirm_replicas else _TRIES):
        async with sides(2, LONELY, confirm_replicas=confirm_replicas) as each:
            assert await version(each.left) == 0
            new = await each.promote(1)
            await each.move(2, new)
            await each.right.in_touch()
            worst = max(worst, await worst_of(each, seconds=3 * BOUND))
        if worst > BOUND:
            break
    assert (worst < BOUND) is (confirm_replicas > 0)


async def test_two_halves_of_four_servers_with_one_confirmation_are_both_believed() -> None:
    """Each half has its own truth for as long as it lasts: a majority is needed, and two are no majority of four."""
    for _ in range(_TRIES):
        async with sides(3, LONELY, confirm_replicas=1) as each:
            assert await version(each.left) == 0
            new = await each.promote(1)
            await each.move(2, new)
            await each.right.in_touch()
            if await worst_of(each, seconds=2 * BOUND) > BOUND:
                return
    raise AssertionError("the old half gave nothing that was old")


async def test_two_halves_of_four_servers_with_two_confirmations_are_not_believed() -> None:
    """Neither renews a lease nor takes a purge until one of them is a majority."""
    async with sides(3, LONELY, confirm_replicas=2) as each:
        assert await version(each.left) == 0
        new = await each.promote(1)
        await each.move(2, new)
        answer = await each.right.ask(method="PUT")
        assert answer.headers["cacheinval-purge"] == "queued"
        await eventually(lambda: not each.left.live and not each.right.live, "the end of both leases")
        # What the left had is not handed over any more, and nothing is down.
        await outdated_no_longer(each.left)
        # The third server goes over as well: a majority.
        await each.move(3, new)
        await each.right.in_touch()
        await eventually(lambda: not each.right.statistics.queue_length, "a number for the queued purge")


async def test_what_was_filled_before_a_new_term_is_confirmed_is_not_kept_in_it() -> None:
    """The third server still follows the old primary: a purge there is done, and the new one must not miss it."""
    async with sides(2, confirm_replicas=1, **CALM) as each:
        new = await each.promote(1)
        term = each.right.statistics.term
        await eventually(lambda: not each.right.statistics.connected, "the right side alone with its server")
        assert await version(each.right) == 0
        assert (await each.left.ask(method="PUT")).headers["cacheinval-purge"] == "done"
        await each.move(2, new)
        await each.right.in_touch()
        assert each.right.statistics.term > term
        assert await version(each.right) == 1


async def test_a_wait_for_all_waits_for_leases_that_the_old_primary_could_still_renew() -> None:
    """However long ago the new term was opened: what counts is when a majority first confirmed it."""
    async with sides(2, confirm_replicas=1) as each:
        new = await each.promote(1)
        # Somebody has written to the new primary: its term has begun, and nobody has confirmed it.
        await eventually(lambda: new.execute("HGET", "{cacheinval}:state", "run"), "the log")
        run = new.info("replication")["master_replid"]
        await eventually(lambda: new.execute("HGET", "{cacheinval}:state", "run") == run, "the new term")
        opened = int(new.execute("HGET", "{cacheinval}:state", "opened")) / 1_000_000
        await eventually(lambda: time.time() > opened + BOUND and each.left.live, "a term that is old enough")
        await each.move(2, new)
        receipt = None
        while receipt is None:
            try:
                receipt = await each.right.cache.invalidate("item:a", wait="all")
            except PurgeNotDelivered:
                await asyncio.sleep(0.01)
        assert not each.left.live
        assert receipt.reason == "new-term"


async def test_the_first_confirmed_answer_promises_no_word_of_the_others() -> None:
    """An earlier primary may have granted leases that this server does not know: who waits has to look at the log."""
    with group(1) as servers:
        primary = servers.servers[0]
        before, confirmed = Asking(primary, 60.0), Asking(primary, 60.0, confirm_replicas=1)
        # The term has begun, and no answer in it has been confirmed.
        await before.heartbeat("other")
        confirmed.ask = before.ask
        assert confirmed.ask.term.number == 1
        pending: list[int | None] = []
        for _ in range(2):
            of_age(primary)
            pending.append((await confirmed.purge("writer")).pending)
        for each in (before, confirmed):
            await each.close()
    assert pending == [None, 1]


async def test_what_is_confirmed_works_as_ever() -> None:
    """Hits, purges of others at once, a wait for all, and a publisher that takes no lease."""
    with group(2) as servers:
        async with fleet(servers.servers[0].url, 2, confirm_replicas=2) as (a, b):
            assert await version(a) == await version(b) == 0
            assert (await b.ask(method="PUT")).headers["cacheinval-purge"] == "done"
            await eventually(lambda: a.statistics.applied == b.statistics.applied, "the purge on the other")
            assert await version(a) == 1
            assert (await a.cache.invalidate("items", wait="all")).replicas == 2


async def test_without_replicas_of_the_server_purges_are_queued_and_nothing_is_down(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The warning says at the start what is missing; requests are answered; all is well when one comes."""
    caplog.set_level(logging.WARNING, "fastapi_cacheinval")
    with group(1) as servers:
        primary, replica = servers.servers
        servers.links[0].reset()
        await asyncio.to_thread(replica.execute, "REPLICAOF", "NO", "ONE")
        await eventually(lambda: not primary.info("replication")["connected_slaves"], "a server alone")
        async with fleet(primary.url, 1, confirm_replicas=1, **QUICK) as (a,):
            assert await version(a) == 0
            assert (await a.ask(method="PUT")).headers["cacheinval-purge"] == "queued"
            assert await version(a) == 1
            assert not a.live
            await eventually(lambda: "0 replica(s) follow the server" in caplog.text, "the warning")
            assert "set confirm_replicas=0" in caplog.text
            assert "0 of 1 replica(s) of the server have acknowledged it in time" in caplog.text
            await asyncio.to_thread(servers.follow, replica, primary)
            await a.in_touch()
            await eventually(lambda: not a.statistics.queue_length, "a number for the queued purge")


async def test_too_few_confirmations_for_the_servers_that_there_are_is_said_at_the_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Four servers and one confirmation are two halves; with two there is nothing to say."""
    caplog.set_level(logging.WARNING, "fastapi_cacheinval")
    with group(3) as servers:
        async with fleet(servers.servers[0].url, 1, confirm_replicas=2) as (a,):
            await a.in_touch()
        assert "confirm_replicas" not in caplog.text
        async with fleet(servers.servers[0].url, 1, confirm_replicas=1) as (a,):
            await a.in_touch()
            await eventually(lambda: "Set confirm_replicas=2" in caplog.text, "the warning")


async def test_in_a_cluster_the_replicas_of_the_shard_with_the_log_confirm() -> None:
    """While the only one stands still purges are queued; other shards need none."""
    with cluster() as nodes:
        primary = nodes.owner(nodes.slot_of("{cacheinval}:state"))
        with nodes.replica_of(primary) as replica:
            url = nodes.url.replace("redis://", "redis+cluster://").removesuffix("/0")
            async with fleet(url, 2, confirm_replicas=1, **CALM) as (a, b):
                assert await version(a) == await version(b) == 0
                assert (await b.ask(method="PUT")).headers["cacheinval-purge"] == "done"
                await eventually(lambda: a.statistics.applied == b.statistics.applied, "the purge on the other")
                assert await version(a) == 1
                replica.pause()
                assert (await b.ask(method="PUT")).headers["cacheinval-purge"] == "queued"
                replica.resume()
                await eventually(lambda: not b.statistics.queue_length, "a number for the queued purge")
                assert await version(b) == 2
