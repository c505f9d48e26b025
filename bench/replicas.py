"""What replicas cost: a hit in L2, a cold burst, purges and heartbeats in the server, memory."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from statistics import median
from typing import Any

import redis
from fastapi import FastAPI
from redis.asyncio import Redis
from starlette.exceptions import HTTPException

from bench.report import Options, Table, reached
from bench.requests import ask, get_scope
from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from fastapi_cacheinval.bus.call import Call, Said, log_keys
from fastapi_cacheinval.bus.entries import encode_payload
from fastapi_cacheinval.bus.script import LUA
from fastapi_cacheinval.cache import internals_of
from fastapi_cacheinval.core.replica import LogEntry, Replica, Reset, Term
from tests.servers.valkey import Valkey, valkey

__all__ = ["run"]

_SECRET = "only for measuring"  # noqa: S105
_HANDLER_SECONDS = 0.1
_PURGE_US = 100.0
_BEAT_SECONDS = 2.0 / 3


class _Shop:
    """Replicas of one app on one event loop, each with its own cache, and how often their handler ran."""

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


async def _far_hits(server: Valkey, rounds: int) -> tuple[list[float], list[float], float]:
    """Microseconds of a request that is answered from L2 and of a bare GET, in turn; commands per hit."""
    shop = _Shop(server.url, 2)
    client: Any = Redis.from_url(server.url)
    await client.set("bare", b"x" * 1024)
    hits: list[float] = []
    gets: list[float] = []
    async with shop.running():
        await ask(shop.apps[0], get_scope("/items/1"))
        async with asyncio.timeout(5):
            while not shop.caches[0].statistics().l2.get("write"):  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
        asked = server.info("commandstats")["cmdstat_get"]["calls"]
        for _ in range(rounds):
            internals_of(shop.caches[1]).engine.store.clear()
            began = time.perf_counter()
            answer = await ask(shop.apps[1], get_scope("/items/1"))
            hits.append((time.perf_counter() - began) * 1e6)
            if not answer.field(b"cache-status").startswith(b"cacheinval; hit"):
                raise RuntimeError(f"not a hit: {answer.headers}")
            began = time.perf_counter()
            await client.get("bare")
            gets.append((time.perf_counter() - began) * 1e6)
        reads = server.info("commandstats")["cmdstat_get"]["calls"] - asked - rounds
    await client.aclose()
    if shop.calls != 1:
        raise RuntimeError(f"the handler ran {shop.calls} times")
    return hits, gets, reads / rounds


def _far_table(server: Valkey, options: Options) -> Table:
    rounds = options.pick(2_000, 20)
    hits, gets, reads = asyncio.run(_far_hits(server, rounds))
    ratio = median(hits) / median(gets)
    return Table(
        "A hit in L2, beside a bare GET",
        f"{rounds:,} requests for one response of 1 KiB that only L2 has, in turn with a bare `GET` of "
        "1 KiB by redis-py; wall time in process: middleware, routing, one round trip, decoding, keeping it near.",
        ("", "median µs", "reads per hit", "ratio", "reached"),
        [
            ("hit in L2", f"{median(hits):.0f}", f"{reads:.2f}", f"{ratio:.1f}", reached(reads == 1.0)),
            ("bare GET", f"{median(gets):.0f}", "", "1.0", ""),
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
            # The one whose forward runs: it was the first to be asked.
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
        f"{clients} requests at the same moment for one URL that nobody has stored, a quarter of them to each replica; "
        f"the handler takes {_HANDLER_SECONDS * 1000:.0f} ms.",
        ("burst", "handler calls", "answers", "ms", "target", "reached"),
        rows,
    )


# -- what it costs the server -----------------------------------------------------------------------


def _script_us(server: Valkey, calls: int, call: Callable[[], object]) -> float:
    """The server's own time for one call of a script, in microseconds."""
    server.execute("CONFIG", "RESETSTAT")
    for _ in range(calls):
        call()
    return float(server.info("commandstats")["cmdstat_evalsha"]["usec_per_call"])


class _Plain:
    """The log's script by a plain client, as one replica that is up to the log's end."""

    def __init__(self, server: Valkey) -> None:
        self.keys = log_keys("measured")
        self._client = redis.Redis(port=server.port)
        self._digest: Any = self._client.script_load(LUA)
        self._numbers = 0
        self._at = (0, "", 0, "")

    def call(self, *tags: bytes) -> None:
        self._numbers += 1
        number, nonce, seq, last = self._at
        payload = encode_payload(tuple(tag.decode() for tag in tags), soft=False) if tags else b""
        call = Call(
            replica="r",
            term=number,
            term_nonce=nonce,
            seq=seq,
            nonce=last,
            fresh=f"{self._numbers:x}",
            bound=2.0,
            channel=self.keys.channel,
            payload=payload,
            tags=tags,
        )
        reply = self._client.evalsha(self._digest, 4, *self.keys[:4], *call.arguments())
        self._at = Said.read(reply)[1:5]

    def close(self) -> None:
        self._client.close()


def _subscribed(server: Valkey, channel: bytes, count: int) -> list[socket.socket]:
    """Connections that subscribe and never read: what is sent to them fits the kernel's buffers."""
    command = b"*2\r\n$9\r\nSUBSCRIBE\r\n$%d\r\n%b\r\n" % (len(channel), channel)
    sockets = []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", server.port))
        connection.sendall(command)
        sockets.append(connection)
    return sockets


def _server_tables(server: Valkey, options: Options) -> list[Table]:
    tags, calls, many = options.pick(1_000_000, 1_000), options.pick(500, 20), options.pick(1_000, 20)
    server.execute("FLUSHALL")
    plain = _Plain(server)
    plain.call()
    before = _script_us(server, calls, plain.call)
    purge_few = _script_us(server, calls, lambda: plain.call(b"product:42"))
    for first in range(0, tags, 1_000):
        plain.call(*(b"product:%d" % number for number in range(first, first + 1_000)))
    purge_many = _script_us(server, calls, lambda: plain.call(b"product:42"))
    beat_many = _script_us(server, calls, plain.call)
    per_tag = int(server.execute("MEMORY", "USAGE", plain.keys.tags.decode(), "SAMPLES", "0")) / tags
    listening = _subscribed(server, plain.keys.channel, many)
    while int(server.execute("PUBSUB", "NUMSUB", plain.keys.channel.decode())[1]) < many:
        time.sleep(0.01)
    heard = _script_us(server, min(calls, 100), lambda: plain.call(b"product:42"))
    for connection in listening:
        connection.close()
    plain.close()
    beats = 1_000 / _BEAT_SECONDS
    return [
        Table(
            "What the log costs the server",
            f"The server's own time for one call of the script (`INFO commandstats`), {calls} calls each; with few and "
            f"with {tags:,} purged tags, and with {many:,} subscribers.",
            ("call", "µs in the server", "target", "reached"),
            [
                ("heartbeat", f"{before:.0f}", "", ""),
                ("purge of a tag", f"{purge_few:.0f}", f"under {_PURGE_US:.0f}", reached(purge_few < _PURGE_US)),
                (
                    f"purge of a tag, {tags:,} tags known",
                    f"{purge_many:.0f}",
                    f"under {_PURGE_US:.0f}",
                    reached(purge_many < _PURGE_US),
                ),
                (f"heartbeat, {tags:,} tags known", f"{beat_many:.0f}", "", ""),
                (f"purge heard by {many:,} subscribers", f"{heard:.0f}", "", ""),
            ],
        ),
        Table(
            "A thousand replicas, a million tags",
            "Computed from the parts measured above: a heartbeat each two thirds of a second (`staleness_bound` 2 s), "
            "and purges heard by all.",
            ("what", "cost", "from", "reached"),
            [
                (
                    "heartbeats of 1,000 replicas",
                    f"{beats * beat_many / 1e6:.1%} of the server's one thread",
                    f"{beats:.0f}/s of {beat_many:.0f} µs",
                    "",
                ),
                (
                    "a purge to 1,000 replicas",
                    f"{heard * 1_000 / many / 1000:.2f} ms of it, so at most {1e6 * many / (heard * 1_000):.0f}/s",
                    f"{many:,} subscribers",
                    "",
                ),
                (
                    "a million purged tags in the server",
                    f"{per_tag * 1e6 / 2**20:.0f} MiB",
                    f"{per_tag:.0f} B each, of {tags:,}",
                    "",
                ),
            ],
        ),
    ]


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
    """What a replica keeps for each purged tag that it knows, in bytes."""
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
        "`MEMORY USAGE` of the key of one response with two tags (from 2 KiB on bodies are compressed, and this one, "
        "which is one letter over and over, far better than any of yours); `tracemalloc` for the replica.",
        ("what", "bytes", "", "reached"),
        rows,
    )


def run(options: Options) -> list[Table]:
    """All that replicas and their server cost."""
    with valkey() as server:
        return [
            _far_table(server, options),
            _burst_table(server, options),
            *_server_tables(server, options),
            _memory_table(server, options),
        ]
