"""`cache.explain()` over a real Redis: what another replica has stored, and Redis away."""

from __future__ import annotations

import pytest

from tests.helpers.fleet import QUICK, Node, eventually, fleet
from tests.servers import Valkey, tcp_proxy

pytestmark = pytest.mark.anyio

URL = "http://test/items/a"


async def started(*nodes: Node) -> None:
    """Have the replicas look at their apps, as a first request does; the page it asks for is not the test's."""
    for node in nodes:
        await node.in_touch()
        await node.ask("/items/other")


async def test_what_another_replica_has_stored_is_found_in_redis(redis_server: Valkey) -> None:
    """One has it on both tiers, the other in Redis alone; looking brings it into neither's L1 and counts nothing."""
    async with fleet(redis_server.url) as (here, there):
        await started(here, there)
        await here.ask()
        await here.written(2)
        before = there.statistics
        own, told = await here.cache.explain(URL), await there.cache.explain(URL)
        assert [copy.tier for copy in own.stored] == ["l1", "l2"]
        assert [copy.tier for copy in told.stored] == ["l2"]
        assert (told.result, told.stored[0].key) == ("hit", own.stored[0].key)
        assert told.stored[0].tags == ("item:a", "items")
        assert "Redis" in told.because
        after = there.statistics
        assert (after.responses, after.l2, after.hits) == (before.responses, before.l2, before.hits)


async def test_a_purge_of_another_replica_is_told(redis_server: Valkey) -> None:
    """Which says that it was another's, and that what is stored may not be used."""
    async with fleet(redis_server.url) as (here, there):
        await started(here, there)
        await there.ask()
        await here.ask(method="PUT")
        await eventually(lambda: there.statistics.applied == 1, "the purge over there")
        told = await there.cache.explain(URL)
        assert told.last_purge is not None
        assert (told.last_purge.own, told.last_purge.tags) == (False, ("item:a",))
        assert (told.result, any(copy.usable for copy in told.stored)) == ("miss", False)


async def test_redis_away_is_told(redis_server: Valkey) -> None:
    """Nothing is raised: what cannot be asked is said in the words of `Cache-Status`."""
    with tcp_proxy(redis_server.port) as proxy:
        async with fleet(proxy.url, 1, **QUICK) as (node,):
            await started(node)
            proxy.refuse()
            proxy.reset()
            await node.out_of_touch()
            told = await node.cache.explain(URL)
            assert (told.result, told.detail) == ("miss", "disconnected")
