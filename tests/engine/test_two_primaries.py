"""A failover in which the old server goes on taking writes for a while."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.helpers.fleet import Data, Node, eventually, joining
from tests.helpers.trouble import QUICK
from tests.servers import replicated, tcp_proxy

pytestmark = pytest.mark.anyio


async def version(node: Node) -> int:
    """Of what it answers."""
    return int(json.loads((await node.ask()).body)["version"])


async def test_a_purge_that_only_the_old_primary_took_is_written_again_in_the_new_term() -> None:
    """What one replica purged in vain, and another had filled in the new term before, is purged there at last."""
    with replicated() as pair, tcp_proxy(pair.first.port) as own_way:
        data = Data()
        async with joining(own_way.url, data, **QUICK) as left, joining(pair.url, data, **QUICK) as right:
            await left.in_touch()
            await right.in_touch()
            term = right.statistics.term
            pair.cut()
            await asyncio.to_thread(pair.promote, kill=False)
            await eventually(lambda: right.statistics.term > term, "the new term")
            await right.in_touch()
            assert await version(right) == 0
            await right.written()

            answer = await left.ask(method="PUT")
            assert answer.headers["cacheinval-purge"] == "done"
            assert left.statistics.term == term
            assert await version(right) == 0

            own_way.target = pair.second.port
            own_way.reset()
            await eventually(lambda: left.statistics.term > term and left.live, "the new term on the left")
            assert await version(left) == 1
            await eventually(lambda: right.statistics.applied >= 1, "the purge on the right")
            assert await version(right) == 1
