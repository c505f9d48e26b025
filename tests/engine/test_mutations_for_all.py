"""`wait="all"` of `invalidates()` and `purge_with_request`: the answer goes when all have applied it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from fastapi import Depends

from fastapi_cacheinval import ConfigurationError, invalidates, purge_with_request
from tests.helpers.fleet import CALM, Node, eventually, fleet, of_age
from tests.helpers.trouble import QUICK, filled_everywhere, never_stale
from tests.servers import Valkey, tcp_proxy

pytestmark = pytest.mark.anyio


async def session() -> Any:
    """A dependency that commits after the handler, so that the answer is held."""
    yield


def routes(node: Node) -> None:
    """Mutations of `/items/a` that wait for all replicas, by each way to say so."""

    async def write() -> None:
        node.data.versions["a"] += 1

    node.app.put("/plain", dependencies=[invalidates("item:a", wait="all")])(write)
    node.app.put("/held", dependencies=[Depends(session), invalidates("item:a", wait="all")])(write)
    node.app.put("/united", dependencies=[invalidates("item:a"), invalidates("items", soft=True, wait="all")])(write)

    @node.app.put("/told")
    async def told() -> None:
        node.data.versions["a"] += 1
        assert purge_with_request("item:a", cache=node.cache, wait="all")


@pytest.mark.parametrize("path", ["/plain", "/held", "/united", "/told"])
async def test_every_replica_has_applied_it_when_the_answer_comes(redis_server: Valkey, path: str) -> None:
    """Heartbeats are far apart, and each answer is followed at once by a read on each replica."""
    async with fleet(redis_server.url, 4, routes=routes, staleness_bound=30.0, redis_timeout=5.0) as nodes:
        of_age(redis_server)
        for version in range(1, 6):
            await filled_everywhere(*nodes[:2])
            answer = await nodes[version % 4].ask(path, method="PUT")
            assert answer.headers["cacheinval-purge"] == "done"
            assert len({node.statistics.applied for node in nodes}) == 1
            await never_stale(nodes, version, seconds=0)


async def test_a_replica_that_is_cut_off_holds_the_answer_until_its_lease_is_over(redis_server: Valkey) -> None:
    """When the answer comes it cannot serve what was purged any more."""
    with tcp_proxy(redis_server.port) as proxy:
        async with (
            fleet(redis_server.url, 1, routes=routes, **QUICK) as (a,),
            fleet(proxy.url, 1, data=a.data, first=1, **QUICK) as (b,),
        ):
            of_age(redis_server)
            await filled_everywhere(a, b)
            proxy.black_hole()
            answer = await a.ask("/plain", method="PUT")
            assert answer.headers["cacheinval-purge"] == "done"
            assert not b.live
            proxy.heal()


async def test_where_nobody_can_say_the_answer_says_so(redis_server: Valkey) -> None:
    """The purge is written, and then the log is gone: `unconfirmed`, and listeners have heard of the purge."""
    with tcp_proxy(redis_server.port) as proxy:
        async with fleet(proxy.url, 1, routes=routes, **CALM) as (a,):
            heard: list[Any] = []

            async def listener(receipt: Any) -> None:
                heard.append(receipt)

            a.cache.add_listener(listener)
            publish = a.cache._core.bus.publish

            async def published(proposal: Any) -> Any:
                line = await publish(proposal)
                proxy.refuse()
                proxy.reset()
                return line

            a.cache._core.bus.publish = published  # type: ignore[method-assign]
            answer = await a.ask("/plain", method="PUT")
            assert answer.status_code == 200
            assert answer.headers["cacheinval-purge"] == "unconfirmed"
            assert answer.cache is not None
            assert answer.cache.detail == "unconfirmed"
            assert [receipt.tags for receipt in heard] == [("item:a",)]
            proxy.heal()


async def test_out_of_reach_it_is_queued_and_nobody_is_waited_for(redis_server: Valkey) -> None:
    """As without `wait`."""
    with tcp_proxy(redis_server.port) as proxy:
        async with fleet(proxy.url, 1, routes=routes, **QUICK) as (a,):
            proxy.refuse()
            proxy.reset()
            await a.out_of_touch()
            began = time.monotonic()
            assert (await a.ask("/plain", method="PUT")).headers["cacheinval-purge"] == "queued"
            assert time.monotonic() - began < 1
            proxy.heal()
            await a.in_touch()


async def test_a_client_that_goes_away_while_the_others_are_waited_for_changes_nothing(redis_server: Valkey) -> None:
    """The purge is made, by a task of the cache's own."""
    async with fleet(redis_server.url, 2, routes=routes, **CALM) as (a, b):
        await filled_everywhere(a, b)
        call = a.call("/plain", method="PUT")
        await eventually(lambda: a.data.versions["a"], "the handler")
        call.task.cancel()
        await asyncio.wait((call.task,))
        await never_stale([a], 1, seconds=0)


@pytest.mark.parametrize("wait", ["ALL", True, 1, "none"])
def test_anything_but_all_is_a_mistake(wait: Any) -> None:
    """It is said where it is written."""
    with pytest.raises(ConfigurationError, match="wait is None or"):
        invalidates("a", wait=wait)
    with pytest.raises(ConfigurationError, match="wait is None or"):
        purge_with_request("a", wait=wait)
