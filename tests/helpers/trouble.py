"""Replicas in trouble: one of them behind a proxy with faults, and what has to hold meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from fastapi_cacheinval import PurgeNotDelivered
from tests.helpers.fleet import QUICK, Node, eventually, fleet
from tests.helpers.http import Answer
from tests.servers import Proxy, Valkey, tcp_proxy

BOUND: float = QUICK["staleness_bound"]
TIMEOUT: float = QUICK["redis_timeout"]
# What a request may cost at most because of Redis: a few calls that are not answered, on a machine that is busy.
SMALL = 4 * TIMEOUT + 1


async def promptly(node: Node, path: str = "/items/a", **more: Any) -> Answer:
    """One request that neither fails nor waits long."""
    began = time.monotonic()
    answer = await node.ask(path, **more)
    seconds = time.monotonic() - began
    assert seconds < SMALL, f"{node} took {seconds:.2f} s"
    assert answer.status_code == 200
    return answer


async def written(node: Node, name: str = "a") -> None:
    """A mutation whose purge has its number."""
    answer = await promptly(node, f"/items/{name}", method="PUT")
    assert answer.headers["cacheinval-purge"] == "done"


async def purged(node: Node, *tags: str) -> None:
    """A purge by hand, which has its number when this returns, be it by way of the queue."""
    try:
        await node.cache.invalidate(*tags)
    except PurgeNotDelivered:
        await eventually(lambda: not node.statistics.queue_length, "a number for the queued purge")


def says_disconnected(answer: Answer) -> bool:
    """Whether an answer says that Redis was out of reach."""
    return answer.cache is not None and answer.cache.detail == "disconnected"


@asynccontextmanager
async def two(server: Valkey, **options: Any) -> AsyncIterator[tuple[Node, Node, Proxy]]:
    """A, and B behind a proxy with faults; both have short leases unless the options say otherwise."""
    given = {**QUICK, **options}
    with tcp_proxy(server.port) as proxy:
        async with fleet(server.url, 1, **given) as (a,), fleet(proxy.url, 1, data=a.data, first=1, **given) as (b,):
            yield a, b, proxy
            proxy.heal()


async def filled_everywhere(a: Node, b: Node) -> None:
    """Have version 0 of `a` in both replicas' L1."""
    await promptly(a)
    await a.written()
    # On a machine that is busy a call may time out; then B has filled it itself.
    for _ in range(3):
        answer = await promptly(b)
        if answer.cache is not None and answer.cache.hit:
            return
    raise AssertionError((answer, b.statistics))


async def never_stale(nodes: Iterable[Node], version: int, *, seconds: float = 0.25) -> None:
    """Ask all replicas, at least once and for a while; nobody answers with an older version."""
    deadline = time.monotonic() + seconds
    while True:
        for node in nodes:
            answer = await promptly(node)
            assert f'"version":{version}' in answer.body.decode(), (node, answer)
        if time.monotonic() >= deadline:
            return
        await asyncio.sleep(0.01)


def agreed(*nodes: Node) -> bool:
    """Whether all stand at one place of the log, under a lease."""
    return all(node.live for node in nodes) and len({(n.statistics.term, n.statistics.applied) for n in nodes}) == 1
