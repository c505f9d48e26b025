"""The time and the round trips of a purge in a process that only publishes, beside the same bytes by redis-py."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any, NamedTuple

import redis
from redis.asyncio import Redis

from bench.report import Options, Table, reached
from fastapi_cacheinval import HTTPCache
from tests.servers.proxy import tcp_proxy
from tests.servers.valkey import valkey

__all__ = ["run"]

_TAG = "product:42"
_BYTES = b"x" * 100
# The delay of each answer in seconds, behind the proxy that is there to count round trips.
_FAR = 0.1
_MOST_MORE = 1

Once = Callable[[], object]


class _Way(NamedTuple):
    """One way to purge, and the bare commands to compare it with."""

    name: str
    ours: Once
    bare: Once


async def _publish(client: Any) -> None:
    async with client.pipeline(transaction=False) as pipeline:
        pipeline.xadd("bare", {"m": _BYTES}, maxlen=10_000)
        pipeline.publish("bare", _BYTES)
        await pipeline.execute()


async def _bare(url: str) -> None:
    async with Redis.from_url(url) as client:
        await _publish(client)


def _bare_sync(url: str) -> None:
    with redis.Redis.from_url(url) as client, client.pipeline(transaction=False) as pipeline:
        pipeline.xadd("bare", {"m": _BYTES}, maxlen=10_000)
        pipeline.publish("bare", _BYTES)
        pipeline.execute()


async def _started(cache: HTTPCache) -> None:
    async with cache:
        await cache.invalidate(_TAG)


def _in_a_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], Awaitable[object]]) -> Once:
    async def once() -> None:
        await call()

    return lambda: loop.run_until_complete(once())


def _ways(url: str, loop: asyncio.AbstractEventLoop) -> list[_Way]:
    cache = HTTPCache.from_url(url)
    bare = _in_a_loop(loop, lambda: _bare(url))
    return [
        _Way("`await cache.invalidate(tag)`, not started", _in_a_loop(loop, lambda: cache.invalidate(_TAG)), bare),
        _Way("`async with cache:` and one purge", _in_a_loop(loop, lambda: _started(cache)), bare),
        _Way(
            "`asyncio.run(cache.invalidate(tag))`",
            lambda: asyncio.run(cache.invalidate(_TAG)),
            lambda: asyncio.run(_bare(url)),
        ),
        _Way("`cache.invalidate_sync(tag)`", lambda: cache.invalidate_sync(_TAG), lambda: _bare_sync(url)),
    ]


def _taken(once: Once) -> float:
    began = time.perf_counter()
    once()
    return time.perf_counter() - began


def _medians(way: _Way, rounds: int) -> tuple[float, float]:
    """Median milliseconds of the way and of the bare commands, which take turns."""
    ours: list[float] = []
    bare: list[float] = []
    for _ in range(rounds):
        ours.append(_taken(way.ours) * 1000)
        bare.append(_taken(way.bare) * 1000)
    return median(ours), median(bare)


async def _kept(url: str, rounds: int) -> tuple[float, float]:
    """The same for a cache and a client that serve many purges."""
    taken: tuple[list[float], list[float]] = ([], [])
    async with Redis.from_url(url) as client, HTTPCache.from_url(url) as cache:
        both: tuple[Callable[[], Awaitable[object]], ...] = (lambda: cache.invalidate(_TAG), lambda: _publish(client))
        for once in both:
            await once()
        for _ in range(rounds):
            for each, once in zip(taken, both, strict=True):
                began = time.perf_counter()
                await once()
                each.append((time.perf_counter() - began) * 1000)
    return median(taken[0]), median(taken[1])


def _trips(way: _Way, tries: int) -> tuple[int, int]:
    """How many answers each waits for, computed from its shortest time when every answer is late."""
    ours, bare = (min(_taken(once) for _ in range(tries)) for once in (way.ours, way.bare))
    return int(ours / _FAR), int(bare / _FAR)


_OURS = "import sys; from fastapi_cacheinval import HTTPCache; HTTPCache.from_url(sys.argv[1]).invalidate_sync('a')"
_THEIRS = (
    "import sys, redis; r = redis.Redis.from_url(sys.argv[1]); p = r.pipeline(transaction=False); "
    "p.xadd('bare', {'m': b'x' * 100}, maxlen=10000); p.publish('bare', b'x' * 100); p.execute(); r.close()"
)


def _process(code: str, url: str) -> Once:
    """A whole process that makes one purge, imports included."""
    return lambda: subprocess.run([sys.executable, "-c", code, url], check=True)


def run(options: Options) -> list[Table]:
    """One row for each way to purge."""
    rounds = options.pick(300, 5)
    rows: list[tuple[str, ...]] = []
    loop = asyncio.new_event_loop()
    with valkey() as server, tcp_proxy(server.port) as far:
        try:
            near, late = _ways(server.url, loop), _ways(far.url, loop)
            times = [_medians(way, rounds) for way in near]
            far.delay(to_client=_FAR)
            # The server has the scripts by now, so that no round trip sends them.
            trips = [_trips(way, options.pick(5, 1)) for way in late]
        finally:
            loop.close()
        for way, (ours, bare), (our_trips, bare_trips) in zip(near, times, trips, strict=True):
            ok = our_trips <= bare_trips + _MOST_MORE
            rows.append(
                (way.name, f"{ours:.2f}", f"{bare:.2f}", str(our_trips), str(bare_trips), "at most 1 more", reached(ok))
            )
        ours, bare = asyncio.run(_kept(server.url, rounds))
        rows.append(("a started cache, a kept client", f"{ours:.2f}", f"{bare:.2f}", "1", "1", "", ""))
        process = "a process of its own, imports included"
        way = _Way(process, _process(_OURS, server.url), _process(_THEIRS, server.url))
        ours, bare = _medians(way, options.pick(10, 1))
        rows.append((process, f"{ours:.0f}", f"{bare:.0f}", "", "", "", ""))
    return [
        Table(
            "Processes that only publish",
            "Milliseconds of one purge of one tag, and in turn of `XADD` and `PUBLISH` of about the same bytes in one "
            f"pipeline by redis-py; medians of {rounds}. Connecting and closing count in every row but that of a "
            f"started cache. Round trips are counted behind a proxy that delays each answer by {_FAR * 1000:.0f} ms.",
            ("way", "ms", "bare ms", "round trips", "bare", "target", "reached"),
            rows,
        )
    ]
