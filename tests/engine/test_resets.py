"""How often everything is given up: once for each life of the log that ends, whatever was under way meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.fleet import PATIENT, eventually, fleet
from tests.servers import Valkey

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("how", ["flushed", "restarted"])
async def test_one_restart_under_many_purges_is_one_reset_per_replica(redis_server: Valkey, how: str) -> None:
    """Purges that were asked for in the old term all say that it is over; the first answer that is taken resets."""
    async with fleet(redis_server.url, 2, **PATIENT) as (a, b):
        for node in (a, b):
            await node.in_touch()
            await node.ask()
        if how == "flushed":
            redis_server.clear()
        else:
            redis_server.kill()
            redis_server.restart()
        purges = [
            node.cache.invalidate(*(f"{number}:{part}" for part in range(600)))
            for node in (a, b)
            for number in range(40)
        ]
        await asyncio.gather(*purges)
        await eventually(lambda: a.statistics.term == b.statistics.term == 2, "the new term")
        await eventually(lambda: a.statistics.applied == b.statistics.applied, "agreement")
        for node in (a, b):
            causes = {cause: count for cause, count in node.statistics.reset_causes.items() if count}
            assert causes == {"start": 1, "new-term": 1}
            # Nothing was purged in vain: the next request is a forward, and what it stores is kept.
            assert_miss(await node.ask(f"/items/{node.number}"))
            assert_hit(await node.ask(f"/items/{node.number}"))
