"""A client's token from a term that the replica it comes to has not heard of."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.core.token import Token
from fastapi_cacheinval.errors import PurgeNotDelivered
from tests.helpers.mutations import until
from tests.servers import replicated, tcp_proxy

pytestmark = pytest.mark.anyio

# Longer than the test: leases do not end by themselves.
BOUND = 60.0


@contextlib.asynccontextmanager
async def serving(url: str) -> AsyncIterator[HTTPCache]:
    """A cache as an app has it: it subscribes, and holds a lease."""
    cache = HTTPCache.from_url(url, staleness_bound=BOUND)
    await cache.start()
    try:
        yield cache
    finally:
        await cache.stop()


async def test_a_token_of_another_term_with_the_same_number_is_not_taken_for_read() -> None:
    """A term that a failover has lost and the one opened instead share their number; the replica in the first one asks."""
    with replicated() as pair, tcp_proxy(pair.address.port) as there, tcp_proxy(pair.address.port) as way:
        async with serving(there.url) as writer, serving(way.url) as reader:
            before = reader._core.engine.replica.term
            assert writer._core.engine.replica.term == before
            await asyncio.to_thread(pair.cut)
            # The log is lost on the primary only, and only the reader hears of the term that is opened then.
            there.black_hole()
            pair.primary.execute("DEL", "{cacheinval}:state")
            await reader.invalidate("lamp")
            await until(lambda: reader._core.engine.replica.term.number == before.number + 1)
            way.black_hole()
            await asyncio.to_thread(pair.promote)
            there.reset()
            there.heal()
            number = await _written(writer)
            token = Token(writer._core.engine.replica.term, number)
            lost = reader._core.engine.replica.term
            assert token.term.number == lost.number
            assert token.term != lost
            assert reader._core.engine.replica.live(reader.clock.now())
            assert not await reader._core.read_up_to(token)
            way.reset()
            way.heal()
            await until(lambda: reader._core.engine.replica.term != lost)
            assert await reader._core.read_up_to(token)


async def _written(cache: HTTPCache) -> int:
    """Purge, however often the connection has to be made anew; the number of the last line."""
    with contextlib.suppress(PurgeNotDelivered):
        await cache.invalidate("kettle")
    await until(lambda: cache.statistics().queue_length == 0)
    return cache._core.engine.replica.applied
