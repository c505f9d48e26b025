"""Replicas of one namespace with different bounds: who waits for all waits for the longest lease that is known of."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.engine.asking import Asking
from tests.helpers.fleet import Node, fleet, joining, of_age
from tests.servers import Valkey, tcp_proxy

pytestmark = pytest.mark.anyio

_SHORT: dict[str, Any] = {"staleness_bound": 0.75, "redis_timeout": 0.25}
_LONG: dict[str, Any] = {"staleness_bound": 4.0, "redis_timeout": 0.5}


async def _version(node: Node) -> int:
    return int(json.loads((await node.ask()).body)["version"])


@pytest.mark.parametrize("lost", ["FLUSHALL", "DEL"])
async def test_after_the_log_was_lost_the_longest_lease_is_waited_for(redis_server: Valkey, lost: str) -> None:
    """The replica that holds it does not hear of that; the one that waits remembers how long its lease may last."""
    with tcp_proxy(redis_server.port) as way:
        async with (
            fleet(way.url, 1, **_LONG) as (long,),
            joining(redis_server.url, long.data, 2, **_SHORT) as short,
        ):
            await long.in_touch()
            await short.in_touch()
            assert await _version(long) == 0
            way.black_hole()
            redis_server.execute(*((lost,) if lost == "FLUSHALL" else (lost, "{cacheinval}:state")))
            await short.in_touch()
            long.data.versions["a"] = 1
            receipt = await short.cache.invalidate("item:a", wait="all")
            assert await _version(long) == 1
            assert receipt.reason == "new-term"


async def purged(asking: Asking, name: str) -> tuple[int | None, bool]:
    """How many others a purge is to hear of, and whether the term counts as young."""
    answer = await asking.purge(name)
    assert answer.line is not None
    return answer.pending, (await asking.log.behind(answer.line)).young


@pytest.mark.parametrize("writer", ["short", ""], ids=["a replica", "a publisher"])
async def test_a_term_is_young_for_as_long_as_any_lease_that_was_heard_of(redis_server: Valkey, writer: str) -> None:
    """Whoever opens the new term, and whoever asks: a term that is older than one's own bound may still be a young one."""
    long, short, other = Asking(redis_server, 60.0), Asking(redis_server, 2.0), Asking(redis_server, 1.0)
    try:
        await long.heartbeat("long")
        await short.heartbeat("short")
        # It hears of it as a replica; without that it is told when it asks.
        redis_server.execute("FLUSHALL")
        await short.heartbeat("short")
        opened = int(redis_server.execute("HGET", "{cacheinval}:state", "opened"))
        redis_server.execute("HSET", "{cacheinval}:state", "opened", opened - 10_000_000)
        assert await purged(other, writer) == (None, True)
        redis_server.execute("HSET", "{cacheinval}:state", "opened", opened - 61_000_000)
        assert (await purged(other, writer))[1] is False
    finally:
        for each in (long, short, other):
            await each.close()


async def test_what_is_written_into_the_log_holds_nobody_for_ever(redis_server: Valkey) -> None:
    """A bound of a century counts as an hour."""
    asking = Asking(redis_server, 2.0)
    try:
        await asking.heartbeat("a")
        of_age(redis_server)
        redis_server.execute("HSET", "{cacheinval}:state", "widest", "3155760000000000")
        line = (await asking.purge("a")).line
        assert line is not None
        assert (await asking.log.behind(line)).bound == 3_600
    finally:
        await asking.close()
