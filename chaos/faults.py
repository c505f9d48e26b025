"""What is done to Valkey, to replicas and to connections, on a seeded schedule, each counted.

Two lanes run side by side: one of faults of the server, one of faults of a replica and its connection. Each lane deals
its kinds like cards, so that every kind comes before any comes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

from chaos.app import NAMESPACE
from chaos.history import Fault
from chaos.stage import Stage

__all__ = ["REPLICAS", "SERVER", "Lane", "play"]

# Does something, gives what it was done to, and makes it good again after its block.
Kind = Callable[[Stage, random.Random], AbstractAsyncContextManager[str]]


class Lane(NamedTuple):
    """Kinds by name, and for how many bounds, from and to, there is peace between two of them."""

    kinds: Mapping[str, Kind]
    between: tuple[float, float]


_do = asyncio.to_thread

# In shares of the bound: what has to outlast a lease, and what need not.
_LONG, _SHORT = (1.3, 3.0), (0.2, 1.0)


async def _last(stage: Stage, draw: random.Random, shares: tuple[float, float]) -> None:
    await asyncio.sleep(stage.bound * draw.uniform(*shares))


# -- of the server ------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _restarted(stage: Stage, draw: random.Random, *, empty: bool) -> AsyncIterator[str]:
    await _do(stage.pair.primary.restart, empty=empty)
    yield "valkey"


@contextlib.asynccontextmanager
async def _gone(stage: Stage, draw: random.Random) -> AsyncIterator[str]:
    await _do(stage.pair.primary.kill)
    try:
        yield "valkey"
        await _last(stage, draw, _LONG)
    finally:
        await _do(stage.pair.primary.start)


@contextlib.asynccontextmanager
async def _server_paused(stage: Stage, draw: random.Random) -> AsyncIterator[str]:
    stage.pair.primary.pause()
    try:
        yield "valkey"
        await _last(stage, draw, _LONG)
    finally:
        stage.pair.primary.resume()


@contextlib.asynccontextmanager
async def _clients_killed(stage: Stage, draw: random.Random, *, kind: str) -> AsyncIterator[str]:
    await _do(stage.pair.primary.execute, "CLIENT", "KILL", "TYPE", kind)
    yield f"{kind} connections"


@contextlib.asynccontextmanager
async def _flushed(stage: Stage, draw: random.Random) -> AsyncIterator[str]:
    await _do(stage.pair.primary.execute, "FLUSHALL")
    yield "valkey"


@contextlib.asynccontextmanager
async def _deleted(stage: Stage, draw: random.Random) -> AsyncIterator[str]:
    """Each key of the log in turn, and some of what is stored."""
    server = stage.pair.primary
    names = [f"{{{NAMESPACE}}}:{part}" for part in ("state", "log", "tags", "acks")]
    stored = sorted(await _do(lambda: list(server.client.scan_iter(f"{NAMESPACE}:*", count=1000))))
    draw.shuffle(names)
    for name in (*names, *draw.sample(stored, min(5, len(stored)))):
        await _do(server.execute, "DEL", name)
        await _last(stage, draw, (0.05, 0.3))
    yield "all keys of the log, one by one"


@contextlib.asynccontextmanager
async def _full(stage: Stage, draw: random.Random) -> AsyncIterator[str]:
    server = stage.pair.primary
    with server.configured(maxmemory=1):
        yield "valkey"
        await _last(stage, draw, _LONG)


@contextlib.asynccontextmanager
async def _evicting(stage: Stage, draw: random.Random) -> AsyncIterator[str]:
    server = stage.pair.primary
    used = int(server.info("memory")["used_memory"])
    with server.configured(maxmemory_policy="allkeys-random", maxmemory=used):
        yield "valkey"
        await _last(stage, draw, _LONG)


@contextlib.asynccontextmanager
async def _failed_over(stage: Stage, draw: random.Random) -> AsyncIterator[str]:
    """To a server that lacks what was written since the two were parted."""
    await _do(stage.pair.cut)
    await _last(stage, draw, _SHORT)
    await _do(stage.fail_over)
    try:
        yield "valkey"
        await _last(stage, draw, _SHORT)
    finally:
        await _do(stage.follow)


# -- of a replica, or its connection to the server ----------------------------------------------


def _one(stage: Stage, draw: random.Random) -> int:
    return draw.randrange(len(stage.proxies))


@contextlib.asynccontextmanager
async def _replica_paused(stage: Stage, draw: random.Random) -> AsyncIterator[str]:
    number = _one(stage, draw)
    stage.pause(number)
    try:
        yield f"replica {number}"
        await _last(stage, draw, _LONG)
    finally:
        stage.resume(number)


@contextlib.asynccontextmanager
async def _replica_killed(stage: Stage, draw: random.Random) -> AsyncIterator[str]:
    number = _one(stage, draw)
    await _do(stage.kill, number)
    try:
        yield f"replica {number}"
    finally:
        await _do(stage.restart, number)


@contextlib.asynccontextmanager
async def _replica_shut_down(stage: Stage, draw: random.Random) -> AsyncIterator[str]:
    number = _one(stage, draw)
    yield f"replica {number}"
    await _do(stage.restart, number)


@contextlib.asynccontextmanager
async def _black_hole(stage: Stage, draw: random.Random, *, one_way: bool) -> AsyncIterator[str]:
    number = _one(stage, draw)
    directions = (draw.choice(("to_server", "to_client")),) if one_way else ()
    stage.proxies[number].black_hole(*directions)
    try:
        yield f"replica {number}" + "".join(f", {direction}" for direction in directions)
        await _last(stage, draw, _LONG)
    finally:
        if draw.random() < 0.5:
            # Else what was kept comes late and all at once.
            stage.proxies[number].reset()
        stage.proxies[number].heal()


@contextlib.asynccontextmanager
async def _delayed(stage: Stage, draw: random.Random) -> AsyncIterator[str]:
    number = _one(stage, draw)
    stage.proxies[number].delay(to_server=draw.uniform(0, 0.15), to_client=draw.uniform(0, 0.15))
    try:
        yield f"replica {number}"
        await _last(stage, draw, _LONG)
    finally:
        stage.proxies[number].heal()


@contextlib.asynccontextmanager
async def _reset(stage: Stage, draw: random.Random) -> AsyncIterator[str]:
    number = _one(stage, draw)
    stage.proxies[number].reset()
    yield f"replica {number}"


@contextlib.asynccontextmanager
async def _refused(stage: Stage, draw: random.Random) -> AsyncIterator[str]:
    number = _one(stage, draw)
    stage.proxies[number].refuse()
    stage.proxies[number].reset()
    try:
        yield f"replica {number}"
        await _last(stage, draw, _LONG)
    finally:
        stage.proxies[number].heal()


def _with(make: Callable[..., AbstractAsyncContextManager[str]], **options: object) -> Kind:
    return lambda stage, draw: make(stage, draw, **options)


SERVER = Lane(
    {
        "server restarted empty": _with(_restarted, empty=True),
        "server restarted with its data": _with(_restarted, empty=False),
        "server gone": _gone,
        "server paused": _server_paused,
        "subscriptions killed": _with(_clients_killed, kind="pubsub"),
        "connections killed": _with(_clients_killed, kind="normal"),
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
        "replica paused": _replica_paused,
        "replica killed": _replica_killed,
        "replica shut down": _replica_shut_down,
        "connection in a black hole": _with(_black_hole, one_way=False),
        "connection one-way": _with(_black_hole, one_way=True),
        "connection slow": _delayed,
        "connections reset": _reset,
        "connections refused": _refused,
    },
    between=(0.2, 0.6),
)


async def play(lane: Lane, stage: Stage, draw: random.Random, until: float, note: Callable[[Fault], object]) -> None:
    """Fault after fault; the last one begins before `until` and ends when it ends."""
    deck: list[str] = []
    while time.monotonic() < until:
        deck = deck or draw.sample(list(lane.kinds), len(lane.kinds))
        kind = deck.pop()
        began = time.monotonic()
        async with lane.kinds[kind](stage, draw) as target:
            pass
        note(Fault(kind=kind, target=target, began=began, ended=time.monotonic()))
        await _last(stage, draw, lane.between)
