"""The cost of replicas: a hit in L2, a cold burst, purges and heartbeats in the server, memory."""

from __future__ import annotations

import asyncio
import contextlib
import time
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median
from typing import Any

from fastapi import FastAPI
from redis.asyncio import Redis
from starlette.exceptions import HTTPException

from bench.log_costs import log_costs
from bench.report import Options, Table, reached
from bench.requests import ask, get_scope
from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from fastapi_cacheinval.cache import internals_of
from fastapi_cacheinval.core.log_types import LogEntry, Reset, Term
from fastapi_cacheinval.core.replica import Replica
from tests.servers.valkey import Valkey, valkey

__all__ = ["run"]

_SECRET = "only for measuring"  # noqa: S105
_HANDLER_SECONDS = 0.1


class _Shop:
    """Replicas of one app on one event loop, each with its own cache; `calls` counts the calls of their handler."""

    def __init__(
        self, url: str, count: int, *, first: str = "succeeds", seconds: float = 0.0, size: int = 1024
    ) -> None:
        self.first = first
        self.calls = 0
        self.entered = asyncio.Event()
        self._seconds = seconds
        self._text = "x" * (size - 20)
        self.caches = [HTTPCache.from_url(url, secret=_SECRET) for _ in range(count)]
        self.apps = [self._app(cache) for cache in self.caches]

    def _app(self, cache: HTTPCache) -> FastAPI:
        app = FastAPI()
        app.add_middleware(CacheMiddleware, cache=cache)

        @app.get("/items/{item_id}", dependencies=[cached(ttl=600, tags=["items", "item:{item_id}"])])
        async def item(item_id: int) -> dict[str, int | str]:
            self.calls += 1
            mine = self.calls
            self.entered.set()
            await asyncio.sleep(self._seconds)
            if mine == 1 and self.first == "fails":
                raise HTTPException(503, "the first call fails")
            return {"id": item_id, "text": self._text}

        return app

    @asynccontextmanager
    async def running(self) -> AsyncIterator[_Shop]:
        for cache in self.caches:
            await cache.start()
        try:
            yield self
        finally:
            for cache in self.caches:
                await cache.stop()


# -- a hit in L2 -----------------------------------------------------------------------


async def _far_hits(server: Valkey, rounds: int) -> tuple[dict[str, list[float]], float]:
    """Microseconds of requests that L2 answers and of a bare `GET`, in turn; and the commands per hit."""
    shop = _Shop(server.url, 2)
    client: Any = Redis.from_url(server.url)
    await client.set("bare", b"x" * 1024)
    taken: dict[str, list[float]] = {"again": [], "first": [], "get": []}

    async def hit(path: str, kind: str) -> None:
        internals_of(shop.caches[1]).engine.store.clear()
        began = time.perf_counter()
        answer = await ask(shop.apps[1], get_scope(path))
        taken[kind].append((time.perf_counter() - began) * 1e6)
        if not answer.field(b"cache-status").startswith(b"cacheinval; hit"):
            raise RuntimeError(f"not a hit: {answer.headers}")

    async with shop.running():
        for number in range(rounds + 1):
            await ask(shop.apps[0], get_scope(f"/items/{number}"))
        async with asyncio.timeout(60):
            while shop.caches[0].statistics().l2.get("write", 0) <= rounds:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
        asked = server.info("commandstats")["cmdstat_get"]["calls"]
        for number in range(rounds):
            await hit("/items/0", "again")
            began = time.perf_counter()
            await client.get("bare")
            taken["get"].append((time.perf_counter() - began) * 1e6)
            await hit(f"/items/{number + 1}", "first")
        reads = server.info("commandstats")["cmdstat_get"]["calls"] - asked - rounds
    await client.aclose()
    if shop.calls != rounds + 1:
        raise RuntimeError(f"the handler ran {shop.calls} times")
    return taken, reads / rounds / 2


def _far_table(server: Valkey, options: Options) -> Table:
    rounds = options.pick(2_000, 20)
    taken, reads = asyncio.run(_far_hits(server, rounds))
    again, first, get = (median(taken[kind]) for kind in ("again", "first", "get"))
    return Table(
        "A hit in L2, beside a bare GET",
        f"{rounds:,} requests for a response of 1 KiB that only L2 has, in turn with a bare `GET` of 1 KiB by "
        "redis-py, and with requests for paths that the replica was not asked for before; wall time in process: "
        "middleware, one round trip, decoding, storing it in L1, and for the first of a path FastAPI's routing.",
        ("", "median µs", "reads per hit", "ratio", "reached"),
        [
            ("hit in L2", f"{again:.0f}", f"{reads:.2f}", f"{again / get:.1f}", reached(reads == 1.0)),
            ("the first of its path", f"{first:.0f}", f"{reads:.2f}", f"{first / get:.1f}", ""),
            ("bare GET", f"{get:.0f}", "", "1.0", ""),
        ],
    )


# -- a cold burst over replicas ---------------------------------------------------------------------


async def _burst(server: Valkey, first: str, clients: int) -> tuple[int, Counter[str], float]:
    shop = _Shop(server.url, 4, first=first, seconds=_HANDLER_SECONDS)
    told: Counter[str] = Counter()

    async def client(number: int) -> None:
        answer = await ask(shop.apps[number % 4], get_scope("/items/1"))
        told[str(answer.status)] += 1

    async with shop.running():
        began = time.perf_counter()
        tasks = [asyncio.create_task(client(number)) for number in range(clients)]
        if first == "is cancelled":
            await shop.entered.wait()
            # The forward of this request runs, because it was the first.
            tasks[0].cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await tasks[0]
            told["cancelled"] += 1
            tasks = tasks[1:]
        await asyncio.gather(*tasks)
        return shop.calls, told, time.perf_counter() - began


def _burst_table(server: Valkey, options: Options) -> Table:
    clients = options.pick(200, 20)
    rows: list[tuple[str, ...]] = []
    for first, most in (("succeeds", 1), ("fails", 2), ("is cancelled", 2)):
        server.execute("FLUSHALL")
        calls, told, seconds = asyncio.run(_burst(server, first, clients))
        answers = ", ".join(f"{count} × {what}" for what, count in sorted(told.items()))
        good = calls <= most and told["200"] >= clients - (most - 1)
        rows.append((f"the first {first}", str(calls), answers, f"{seconds * 1000:.0f}", f"{most}", reached(good)))
    return Table(
        "Cold burst over four replicas",
        f"{clients} requests at the same moment for one URL that is not stored, a quarter of them to each replica; "
        f"the handler takes {_HANDLER_SECONDS * 1000:.0f} ms.",
        ("burst", "handler calls", "answers", "ms", "target", "reached"),
        rows,
    )


# -- memory in the server ---------------------------------------------------------------------------


async def _stored_bytes(server: Valkey, size: int) -> int:
    shop = _Shop(server.url, 1, size=size)
    async with shop.running():
        await ask(shop.apps[0], get_scope("/items/1"))
        async with asyncio.timeout(5):
            while not (keys := server.execute("KEYS", "*:r")):  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
    return int(server.execute("MEMORY", "USAGE", keys[0]))


def _replica_bytes(tags: int) -> float:
    """The bytes of a replica for each purged tag that it knows."""
    term = Term(1, "t")
    replica = Replica(staleness_bound=2.0, most_cells=2 * tags)
    replica.apply_reply(Reset(term, 0, ""), 0.0, 0.0)
    tracemalloc.start()
    for seq in range(1, tags + 1):
        replica.apply_message(LogEntry(term, seq, f"{seq:x}", (f"product:{seq}",), soft=False, at=0.0), 0.0)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return used / tags


def _memory_table(server: Valkey, options: Options) -> Table:
    rows: list[tuple[str, ...]] = []
    for size in (256, 1024, 16 * 1024):
        server.execute("FLUSHALL")
        used = asyncio.run(_stored_bytes(server, size))
        rows.append((f"a response of {size:,} B, in the server", f"{used:,}", f"{used - size:,} over its body", ""))
    tags = options.pick(100_000, 1_000)
    rows.append(("a purged tag, in a replica", f"{_replica_bytes(tags):.0f}", f"the mean of {tags:,}", ""))
    return Table(
        "Memory of what is stored and purged",
        "`MEMORY USAGE` of the key of one response with two tags; `tracemalloc` for the replica. Bodies of 2 KiB and "
        "more are compressed. This one repeats one letter, so it shrinks far more than yours will.",
        ("what", "bytes", "", "reached"),
        rows,
    )


def run(options: Options) -> list[Table]:
    """The tables of all these costs."""
    with valkey() as server:
        return [
            _far_table(server, options),
            _burst_table(server, options),
            *log_costs(server, options),
            _memory_table(server, options),
        ]
