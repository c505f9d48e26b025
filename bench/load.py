"""The load that the purge log bears: waits for every replica, purges and heartbeats, each beside bare commands."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from statistics import median
from typing import Any

from redis.asyncio import Redis

from bench.heartbeats import heartbeats
from bench.report import Options, Table, reached
from bench.waiting import waiting
from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.bus.entries import encode_payload
from tests.servers.valkey import valkey

__all__ = ["run"]

_LEAST_SHARE = 0.5
# The number of tags of a purge, and of purges side by side.
_LOADS = ((1, 1), (1, 16), (1, 64), (100, 1), (100, 16), (1_000, 1), (1_000, 16))

Purge = Callable[[tuple[str, ...]], Awaitable[object]]


@asynccontextmanager
async def _by_cache(url: str) -> AsyncIterator[Purge]:
    async with HTTPCache.from_url(url, staleness_bound=30, redis_timeout=10) as cache:
        yield lambda tags: cache.invalidate(*tags)


@asynccontextmanager
async def _by_hand(url: str) -> AsyncIterator[Purge]:
    """A line of the same length, to a stream of the same length and to a channel, in one round trip."""
    client: Any = Redis.from_url(url)
    header = b"1 1 0123456789abcdef 1000000 0123456789abcdef 1000000000000000\n"

    async def purge(tags: tuple[str, ...]) -> object:
        message = header + encode_payload(tags, soft=False)
        pipeline = client.pipeline(transaction=False)
        pipeline.xadd("bare", {"n": b"0123456789abcdef", "m": message}, maxlen=10_000, approximate=False)
        pipeline.publish("bare", message)
        return await pipeline.execute()

    try:
        yield purge
    finally:
        await client.aclose()


async def _rate(purge: Purge, tags: int, side_by_side: int, seconds: float) -> float:
    """Purges a second."""
    deadline = time.perf_counter() + seconds
    done = 0

    async def work(number: int) -> None:
        nonlocal done
        turn = 0
        while time.perf_counter() < deadline:
            turn += 1
            await purge(tuple(f"product:{number}:{turn}:{each}" for each in range(tags)))
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(work(number) for number in range(side_by_side)))
    return done / (time.perf_counter() - began)


async def _measure(url: str, tags: int, side_by_side: int, rounds: int, seconds: float) -> tuple[float, float]:
    """The median rates of the cache and of the bare commands, which take turns."""
    rates: tuple[list[float], list[float]] = ([], [])
    async with _by_cache(url) as by_cache, _by_hand(url) as by_hand:
        for _ in range(rounds):
            for found, purge in zip(rates, (by_cache, by_hand), strict=True):
                found.append(await _rate(purge, tags, side_by_side, seconds))
    return median(rates[0]), median(rates[1])


def run(options: Options) -> list[Table]:
    """The tables of waits, purges and heartbeats."""
    return [waiting(options), _purges(options), *heartbeats(options)]


def _purges(options: Options) -> Table:
    """One row for each load."""
    rows: list[tuple[str, ...]] = []
    rounds, seconds = options.pick(3, 1), options.pick(1_000, 50) / 1_000
    with valkey() as server:
        for tags, side_by_side in _LOADS:
            server.client.flushall()
            ours, bare = asyncio.run(_measure(server.unix_url, tags, side_by_side, rounds, seconds))
            rows.append(
                (
                    f"{tags:,}",
                    str(side_by_side),
                    f"{ours:,.0f}",
                    f"{bare:,.0f}",
                    f"{ours / bare:.2f}",
                    f"at least {_LEAST_SHARE}",
                    reached(ours >= _LEAST_SHARE * bare),
                )
            )
    return Table(
        "Purges a second",
        "`await cache.invalidate(*tags)` on a started cache, and in turn `XADD` and `PUBLISH` of the same bytes in "
        f"one pipeline by redis-py; one process, one Valkey; medians of {rounds} rounds of {seconds:g} s.",
        ("tags", "side by side", "purges a second", "bare", "share", "target", "reached"),
        rows,
    )
