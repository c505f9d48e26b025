"""What `confirm_replicas` adds to a heartbeat and to a purge."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

from bench.report import Options, Table
from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.cache import internals_of
from tests.servers.group import group

__all__ = ["run"]

_REPLICAS = 2


async def _measure(url: str, rounds: int) -> dict[tuple[str, int], list[float]]:
    """Milliseconds of each call, by what it was and by how many replicas confirm it; all in turn."""
    taken: dict[tuple[str, int], list[float]] = {}
    async with AsyncExitStack() as running:
        caches: list[HTTPCache] = []
        for count in range(_REPLICAS + 1):
            cache = HTTPCache.from_url(url, namespace=f"confirm-{count}", confirm_replicas=count)
            await cache.start()
            running.push_async_callback(cache.stop)
            await cache.invalidate("first")
            caches.append(cache)
        for _ in range(rounds):
            for count, cache in enumerate(caches):
                began = time.perf_counter()
                await internals_of(cache).bus.catch_up()
                between = time.perf_counter()
                await cache.invalidate("product:42")
                ended = time.perf_counter()
                taken.setdefault(("heartbeat", count), []).append((between - began) * 1000)
                taken.setdefault(("purge", count), []).append((ended - between) * 1000)
    return taken


def _at(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def run(options: Options) -> list[Table]:
    """One row for each kind of call and number of confirmations."""
    rounds = options.pick(1_000, 10)
    with group(_REPLICAS) as servers:
        taken = asyncio.run(_measure(servers.servers[0].url, rounds))
    rows: list[tuple[str, ...]] = []
    for kind in ("heartbeat", "purge"):
        without = _at(taken[kind, 0], 0.5)
        for count in range(_REPLICAS + 1):
            each = taken[kind, count]
            median = _at(each, 0.5)
            rows.append((kind, str(count), f"{median:.2f}", f"{_at(each, 0.99):.2f}", f"{median - without:+.2f}", ""))
    return [
        Table(
            "What a confirmation costs",
            f"Milliseconds of one heartbeat and of one purge, {rounds:,} each in turn, with a Valkey and {_REPLICAS} "
            "replicas of it on one machine, reached through a proxy. A confirmation is one round trip between the "
            "server and its replicas.",
            ("call", "`confirm_replicas`", "median ms", "p99 ms", "added ms", "reached"),
            rows,
        )
    ]
