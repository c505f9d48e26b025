"""How long a purge takes to every replica, beside what a bare publish takes to as many callbacks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from redis.asyncio import Redis

from bench.applying import TellingCache, tell_of_applied
from bench.report import Options, Table, quantile, reached
from fastapi_cacheinval import HTTPCache
from tests.servers.valkey import valkey

__all__ = ["run"]

_COUNTS = (1, 4, 16)
_MOST_RATIO = 1.5
_CHANNEL = "bare"
# A machine that is busy with something else is no Redis that is silent.
_PATIENT: dict[str, Any] = {"staleness_bound": 30, "redis_timeout": 10}


class _Arrivals:
    """Counts to a number, and sets an event there."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._left = 0
        self._all = asyncio.Event()

    def expect(self) -> None:
        self._left = self._count
        self._all.clear()

    def one(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._all.set()

    async def all(self) -> None:
        async with asyncio.timeout(10):
            await self._all.wait()


@asynccontextmanager
async def _purging(url: str, arrivals: _Arrivals, count: int) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    async with AsyncExitStack() as running:
        for _ in range(count):
            replica = TellingCache.from_url(url, **_PATIENT)
            tell_of_applied(replica, arrivals.one)
            await replica.start()
            running.push_async_callback(replica.stop)
        publisher = await running.enter_async_context(HTTPCache.from_url(url, **_PATIENT))
        yield lambda: publisher.invalidate("product:42")


@asynccontextmanager
async def _publishing(url: str, arrivals: _Arrivals, count: int) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    client: Any = Redis.from_url(url)

    async def listen(pubsub: Any) -> None:
        async for message in pubsub.listen():
            if message["type"] == "message":
                arrivals.one()

    listening, tasks = [client.pubsub() for _ in range(count)], []
    for pubsub in listening:
        await pubsub.subscribe(_CHANNEL)
        tasks.append(asyncio.create_task(listen(pubsub)))
    try:
        yield lambda: client.publish(_CHANNEL, b"product:42")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for pubsub in listening:
            await pubsub.aclose()
        await client.aclose()


async def _measure(url: str, count: int, rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds until all have it: of purges, and of bare messages; they take turns."""
    by_purge, by_message = _Arrivals(count), _Arrivals(count)
    taken: tuple[list[float], list[float]] = ([], [])
    async with _purging(url, by_purge, count) as purge, _publishing(url, by_message, count) as publish:
        for _ in range(rounds):
            for each, arrivals, send in ((taken[0], by_purge, purge), (taken[1], by_message, publish)):
                arrivals.expect()
                began = time.perf_counter()
                await send()
                await arrivals.all()
                each.append((time.perf_counter() - began) * 1000)
    return taken


def run(options: Options) -> list[Table]:
    """One row for each number of replicas."""
    rows: list[tuple[str, ...]] = []
    rounds = options.pick(1_000, 20)
    with valkey() as server:
        for count in _COUNTS:
            purges, messages = asyncio.run(_measure(server.url, count, rounds))
            ratio = quantile(purges, 0.99) / quantile(messages, 0.99)
            rows.append(
                (
                    str(count),
                    f"{quantile(purges, 0.5):.2f}",
                    f"{quantile(messages, 0.5):.2f}",
                    f"{quantile(purges, 0.99):.2f}",
                    f"{quantile(messages, 0.99):.2f}",
                    f"{ratio:.2f}",
                    f"at most {_MOST_RATIO}" if count == 16 else "",
                    reached(ratio <= _MOST_RATIO) if count == 16 else "",
                )
            )
    return [
        Table(
            "Propagation of a purge",
            f"{rounds:,} times `await cache.invalidate(tag)` on one replica until all others have applied it, and in "
            "turn a bare `PUBLISH` by redis-py until as many of its callbacks have it; all in one process, one Valkey.",
            ("replicas", "median ms", "bare", "p99 ms", "bare", "ratio of p99", "target", "reached"),
            rows,
        )
    ]
