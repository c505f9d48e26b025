"""The feed over a real Redis: purges of others, resets, and the log's coming and going."""

from __future__ import annotations

import pytest

from fastapi_cacheinval import ConnectionEvent, Event, PurgeEvent, ResetEvent
from fastapi_cacheinval.engine.process_name import process_name
from tests.helpers.fleet import QUICK, eventually, fleet
from tests.servers import Valkey, tcp_proxy

pytestmark = pytest.mark.anyio


async def test_a_purge_is_told_on_every_replica(redis_server: Valkey) -> None:
    """On the one that made it with its route, on the other with the process that made it and how long it took."""
    async with fleet(redis_server.url) as (here, there):
        events: list[list[Event]] = [[], []]
        for node, heard in zip((here, there), events, strict=True):
            await node.in_touch()
            node.cache.subscribe(heard.append)
        await here.ask(method="PUT")
        await eventually(lambda: any(isinstance(each, PurgeEvent) for each in events[1]), "the purge over there")
        (own,) = [each for each in events[0] if isinstance(each, PurgeEvent)]
        (others,) = [each for each in events[1] if isinstance(each, PurgeEvent)]
        assert (own.own, own.by, own.delay) == (True, "PUT /items/{name}", None)
        assert (others.own, others.by) == (False, process_name())
        assert others.delay is not None
        assert (own.term, own.seq, own.tags) == (others.term, others.seq, others.tags) == (1, 1, ("item:a",))


async def test_a_log_that_goes_and_comes_is_told_once_each(redis_server: Valkey) -> None:
    """A loss and a return are one event each, and a log that began anew is a reset."""
    with tcp_proxy(redis_server.port) as proxy:
        async with fleet(proxy.url, 1, **QUICK) as (node,):
            await node.in_touch()
            events: list[Event] = []
            node.cache.subscribe(events.append)
            proxy.refuse()
            proxy.reset()
            await node.out_of_touch()
            redis_server.client.flushall()
            proxy.heal()
            await node.in_touch()
            told = [each for each in events if isinstance(each, ConnectionEvent)]
            assert [each.connected for each in told] == [False, True]
            assert told[0].cause
            assert [each.cause for each in events if isinstance(each, ResetEvent)] == ["new-term"]
