"""Replicas for the command to look at, each of which has left a summary."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.helpers.fleet import PATIENT, Node, eventually, fleet
from tests.servers import Valkey

__all__ = ["told", "watched"]


def _sets(server: Valkey) -> int:
    return int(server.info("commandstats").get("cmdstat_set", {"calls": 0})["calls"])


async def told(server: Valkey, *nodes: Node) -> None:
    """Have the replicas leave new summaries, and wait for those."""
    for node in nodes:
        await node.ask("/nowhere")
        wanted = _sets(server) + 1
        node.clock.tick(node.cache.settings.staleness_bound - 0.001)
        await eventually(lambda wanted=wanted: _sets(server) >= wanted, "the summary of a replica")  # type: ignore[misc]
        await node.ask("/nowhere")
        node.clock.tick(0.001)
        await node.in_touch()


@asynccontextmanager
async def watched(server: Valkey, count: int = 2, **options: Any) -> AsyncIterator[list[Node]]:
    """So many replicas with clocks that stand; `told` has them say how they are.

    Their leases are long: the server's clock does not stand, and a command takes seconds to start.
    """
    async with fleet(server.url, count, clocks=True, **{**PATIENT, **options}) as nodes:
        # Of a term that has just begun a lease of the one before would be waited for.
        server.execute("HSET", "{cacheinval}:state", "opened", "1")
        yield nodes
