"""Faults of a Valkey that has a replica of its own, and of the connections of the app's replicas to it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from chaos.app import NAMESPACE
from chaos.lanes import LONG, SHORT, Lane, do, last, with_options
from chaos.replica_faults import REPLICA_KINDS

if TYPE_CHECKING:
    from chaos.pair import Pair

__all__ = ["REPLICAS", "SERVER"]


# -- of the server ------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _restarted(stage: Pair, draw: random.Random, *, empty: bool) -> AsyncIterator[str]:
    await do(stage.pair.primary.restart, empty=empty)
    yield "valkey"


@contextlib.asynccontextmanager
async def _gone(stage: Pair, draw: random.Random) -> AsyncIterator[str]:
    await do(stage.pair.primary.kill)
    try:
        yield "valkey"
        await last(stage.bound, draw, LONG)
    finally:
        await do(stage.pair.primary.start)


@contextlib.asynccontextmanager
async def _server_paused(stage: Pair, draw: random.Random) -> AsyncIterator[str]:
    stage.pair.primary.pause()
    try:
        yield "valkey"
        await last(stage.bound, draw, LONG)
    finally:
        stage.pair.primary.resume()


@contextlib.asynccontextmanager
async def _clients_killed(stage: Pair, draw: random.Random, *, kind: str) -> AsyncIterator[str]:
    await do(stage.pair.primary.execute, "CLIENT", "KILL", "TYPE", kind)
    yield f"{kind} connections"


@contextlib.asynccontextmanager
async def _idle_closed(stage: Pair, draw: random.Random) -> AsyncIterator[str]:
    """The server closes each connection that is silent for a second, as a load balancer does."""
    with stage.pair.primary.configured(timeout=1):
        yield "valkey"
        await last(stage.bound, draw, LONG)


@contextlib.asynccontextmanager
async def _flushed(stage: Pair, draw: random.Random) -> AsyncIterator[str]:
    await do(stage.pair.primary.execute, "FLUSHALL")
    yield "valkey"


@contextlib.asynccontextmanager
async def _deleted(stage: Pair, draw: random.Random) -> AsyncIterator[str]:
    """Delete each key of the log in turn, and the keys of a few stored responses."""
    server = stage.pair.primary
    names = [f"{{{NAMESPACE}}}:{part}" for part in ("state", "log", "tags", "acks")]
    stored = sorted(await do(lambda: list(server.client.scan_iter(f"{NAMESPACE}:*", count=1000))))
    draw.shuffle(names)
    for name in (*names, *draw.sample(stored, min(5, len(stored)))):
        await do(server.execute, "DEL", name)
        await last(stage.bound, draw, (0.05, 0.3))
    yield "all keys of the log, one by one"


@contextlib.asynccontextmanager
async def _full(stage: Pair, draw: random.Random) -> AsyncIterator[str]:
    server = stage.pair.primary
    with server.configured(maxmemory=1):
        yield "valkey"
        await last(stage.bound, draw, LONG)


@contextlib.asynccontextmanager
async def _evicting(stage: Pair, draw: random.Random) -> AsyncIterator[str]:
    server = stage.pair.primary
    used = int(server.info("memory")["used_memory"])
    with server.configured(maxmemory_policy="allkeys-random", maxmemory=used):
        yield "valkey"
        await last(stage.bound, draw, LONG)


@contextlib.asynccontextmanager
async def _failed_over(stage: Pair, draw: random.Random) -> AsyncIterator[str]:
    """Fail over to a server that lacks the writes since the two were parted."""
    await do(stage.pair.cut)
    await last(stage.bound, draw, SHORT)
    await do(stage.fail_over)
    try:
        yield "valkey"
        await last(stage.bound, draw, SHORT)
    finally:
        await do(stage.follow)


# -- of a connection to the server --------------------------------------------------------------


@contextlib.asynccontextmanager
async def _black_hole(stage: Pair, draw: random.Random, *, one_way: bool) -> AsyncIterator[str]:
    number = stage.one(draw)
    directions = (draw.choice(("to_server", "to_client")),) if one_way else ()
    stage.proxies[number].black_hole(*directions)
    try:
        yield f"replica {number}" + "".join(f", {direction}" for direction in directions)
        await last(stage.bound, draw, LONG)
    finally:
        if draw.random() < 0.5:
            # Without a reset the delayed bytes all arrive now.
            stage.proxies[number].reset()
        stage.proxies[number].heal()


@contextlib.asynccontextmanager
async def _delayed(stage: Pair, draw: random.Random) -> AsyncIterator[str]:
    number = stage.one(draw)
    stage.proxies[number].delay(to_server=draw.uniform(0, 0.15), to_client=draw.uniform(0, 0.15))
    try:
        yield f"replica {number}"
        await last(stage.bound, draw, LONG)
    finally:
        stage.proxies[number].heal()


@contextlib.asynccontextmanager
async def _reset(stage: Pair, draw: random.Random) -> AsyncIterator[str]:
    number = stage.one(draw)
    stage.proxies[number].reset()
    yield f"replica {number}"


@contextlib.asynccontextmanager
async def _refused(stage: Pair, draw: random.Random) -> AsyncIterator[str]:
    number = stage.one(draw)
    stage.proxies[number].refuse()
    stage.proxies[number].reset()
    try:
        yield f"replica {number}"
        await last(stage.bound, draw, LONG)
    finally:
        stage.proxies[number].heal()


SERVER = Lane(
    {
        "server restarted empty": with_options(_restarted, empty=True),
        "server restarted with its data": with_options(_restarted, empty=False),
        "server gone": _gone,
        "server paused": _server_paused,
        "subscriptions killed": with_options(_clients_killed, kind="pubsub"),
        "connections killed": with_options(_clients_killed, kind="normal"),
        "idle connections closed": _idle_closed,
        "FLUSHALL": _flushed,
        "keys deleted one by one": _deleted,
        "server full": _full,
        "server evicting": _evicting,
        "failover that loses writes": _failed_over,
    },
    between=(0.8, 2.0),
)
REPLICAS = Lane(
    {
        **REPLICA_KINDS,
        "connection in a black hole": with_options(_black_hole, one_way=False),
        "connection one-way": with_options(_black_hole, one_way=True),
        "connection slow": _delayed,
        "connections reset": _reset,
        "connections refused": _refused,
    },
    between=(0.2, 0.6),
)
