"""The time that `confirm_replicas` adds to a heartbeat and to a purge."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

from redis.asyncio import Redis

from bench.report import Options, Table, quantile, reached
from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.cache import internals_of
from tests.servers.group import group

__all__ = ["run"]

_REPLICAS = 2
_KINDS = ("heartbeat", "purge", "bare")
_MOST_SHARE = 2.0


async def _measure(url: str, rounds: int) -> dict[tuple[str, int], list[float]]:
    """Milliseconds of each call, by its kind and the number of replicas that confirm it. The calls take turns."""
    taken: dict[tuple[str, int], list[float]] = {}
    async with AsyncExitStack() as running:
        caches: list[HTTPCache] = []
        for count in range(_REPLICAS + 1):
            cache = HTTPCache.from_url(url, namespace=f"confirm-{count}", confirm_replicas=count)
            await cache.start()
            running.push_async_callback(cache.stop)
            await cache.invalidate("first")
            caches.append(cache)
        client: Any = await running.enter_async_context(Redis.from_url(url))
        for _ in range(rounds):
            for count, cache in enumerate(caches):
                moments = [time.perf_counter()]
                for call in (internals_of(cache).bus.catch_up, lambda cache=cache: cache.invalidate("product:42")):
                    await call()
                    moments.append(time.perf_counter())
                await _bare(client, count)
                moments.append(time.perf_counter())
                for kind, (began, ended) in zip(_KINDS, pairwise(moments), strict=True):
                    taken.setdefault((kind, count), []).append((ended - began) * 1000)
    return taken


async def _bare(client: Any, count: int) -> None:
    """A write, and a wait until `count` replicas have it."""
    async with client.pipeline(transaction=False) as pipeline:
        pipeline.set("bare", "x")
        if count:
            pipeline.wait(count, 1000)
        await pipeline.execute()


def run(options: Options) -> list[Table]:
    """One row for each kind of call and number of confirmations."""
    rounds = options.pick(1_000, 10)
    with group(_REPLICAS) as servers:
        taken = asyncio.run(_measure(servers.servers[0].url, rounds))
    rows: list[tuple[str, ...]] = []
    for kind in _KINDS:
        for count in range(_REPLICAS + 1):
            each = taken[kind, count]
            median, without, bare = (quantile(taken[of], 0.5) for of in ((kind, count), (kind, 0), ("bare", count)))
            judged = count > 0 and kind != "bare"
            rows.append(
                (
                    "bare `SET`" if kind == "bare" else kind,
                    str(count),
                    f"{median:.2f}",
                    f"{quantile(each, 0.99):.2f}",
                    f"{median - without:+.2f}",
                    f"at most {_MOST_SHARE:g}× the bare one" if judged else "",
                    reached(median <= _MOST_SHARE * bare) if judged else "",
                )
            )
    return [
        Table(
            "What a confirmation costs",
            f"Milliseconds of one heartbeat and of one purge, {rounds:,} of each in turn. A Valkey and its "
            f"{_REPLICAS} replicas run on one machine, with a proxy between the Valkey and each replica. A "
            "confirmation is one round trip between the server and its replicas. The last rows are a bare `SET`, with "
            "`WAIT` in the same pipeline.",
            ("call", "`confirm_replicas`", "median ms", "p99 ms", "added ms", "target", "reached"),
            rows,
        )
    ]
