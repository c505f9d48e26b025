"""The time that `wait="all"` takes, compared with a bare publish to as many processes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from redis.asyncio import Redis

from bench.fleet import BARE, Arrivals, fleet, settled
from bench.report import Options, Table, quantile, reached
from fastapi_cacheinval import HTTPCache
from tests.servers.valkey import valkey

__all__ = ["waiting"]

_MOST_MEDIAN, _MOST_TAIL = 2.0, 4.0


async def _measure(url: str, arrivals: Arrivals, count: int, rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds of purges with `wait="all"`, and of bare messages until the last process has them, in turn."""
    waits: list[float] = []
    messages: list[float] = []
    client: Any = Redis.from_url(url)
    cache = HTTPCache.from_url(url)
    await cache.start()
    # In a new term a purge also waits until the leases of the last term have ended.
    while (await cache.invalidate("product:42", wait="all")).reason:
        pass
    settled()
    for number in range(1, rounds + 1):
        began = time.monotonic()
        receipt = await cache.invalidate("product:42", wait="all")
        waits.append((time.monotonic() - began) * 1000)
        if receipt.replicas != count + 1:
            raise RuntimeError(f"{receipt.replicas} replicas, not {count + 1}")
        began = time.monotonic()
        await client.publish(BARE, number)
        published = time.monotonic()
        while (last := arrivals.last(number)) is None:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)
        messages.append((max(last, published) - began) * 1000)
    await client.aclose()
    await cache.stop()
    return waits, messages


def waiting(options: Options) -> Table:
    """One row for each number of replicas."""
    rows: list[tuple[str, ...]] = []
    rounds = options.pick(500, 10)
    for count in (1, options.pick(4, 2), *((16,) if not options.quick else ())):
        with valkey() as server, fleet(server.url, count) as arrivals:
            waits, messages = asyncio.run(_measure(server.url, arrivals, count, rounds))
        median, tail = (quantile(waits, share) / quantile(messages, share) for share in (0.5, 0.99))
        rows.append(
            (
                str(count),
                f"{quantile(waits, 0.5):.2f}",
                f"{quantile(messages, 0.5):.2f}",
                f"{median:.1f}",
                f"{quantile(waits, 0.99):.2f}",
                f"{quantile(messages, 0.99):.2f}",
                f"{tail:.1f}",
                f"{_MOST_MEDIAN:g}, {_MOST_TAIL:g}",
                f"{reached(median <= _MOST_MEDIAN)}; {reached(tail <= _MOST_TAIL)}",
            )
        )
    return Table(
        "Waiting for every replica",
        f'{rounds:,} times `await cache.invalidate(tag, wait="all")` on one more replica, and in turn a bare '
        "`PUBLISH` by redis-py until the last of as many processes has it; each replica in a process of its own, one "
        "Valkey.",
        ("others", "median ms", "bare", "ratio", "p99 ms", "bare", "ratio", "target: at most", "reached"),
        rows,
    )
