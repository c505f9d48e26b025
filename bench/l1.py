"""L1: share of hits beside other policies, bytes counted beside bytes handed out, and what a call costs.

`python -m bench.l1`. The libraries (cachetools, cachebox, theine) are compared where they are installed.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import importlib.metadata
import platform
import random
import time
import tracemalloc
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate
from math import inf
from typing import Any, NamedTuple

from fastapi_cacheinval.core.stored import Stamp, StoredResponse, share, weigh
from fastapi_cacheinval.core.tags import ALL
from fastapi_cacheinval.stores.memory import NODE_BYTES, MemoryStore

KEYS, ROOM, REQUESTS, SEED = 100_000, 1000, 1_000_000, 20_240_901
KEY_BYTES, WEIGHT = 65, 2300


class Policy(NamedTuple):
    name: str
    get: Callable[[Any], Any]
    put: Callable[[Any], Any]


def trace(requests: int, *, scans: bool) -> Iterator[tuple[int, bool]]:
    """Zipf 0.9 by rank; each pair says whether the request counts, which a scan's does not."""
    draw = random.Random(SEED).random
    shares = list(accumulate(rank**-0.9 for rank in range(1, KEYS + 1)))
    unseen = KEYS
    for number in range(1, requests + 1):
        yield bisect_left(shares, draw() * shares[-1]), True
        if scans and number % 50_000 == 0:
            for _ in range(10_000):
                unseen += 1
                yield unseen, False


def hit_ratio(policy: Policy, *, scans: bool) -> float:
    hits = 0
    for number, counts in trace(REQUESTS, scans=scans):
        key = b"%032d" % number
        if policy.get(key) is not None:
            hits += counts
        else:
            policy.put(key)
    return hits / REQUESTS


def ours() -> Policy:
    """The limit is what 1,000 responses count by themselves: tables and memory of who left come out of it."""
    store: MemoryStore[bool] = MemoryStore(ROOM * (WEIGHT + NODE_BYTES + KEY_BYTES))
    return Policy("MemoryStore", store.get, lambda key: store.put(key, value=True, weight=WEIGHT, until=inf, now=0.0))


def lru() -> Policy:
    kept: OrderedDict[bytes, bool] = OrderedDict()

    def get(key: bytes) -> bool | None:
        if key not in kept:
            return None
        kept.move_to_end(key)
        return True

    def put(key: bytes) -> None:
        kept[key] = True
        if len(kept) > ROOM:
            kept.popitem(last=False)

    return Policy("LRU of an OrderedDict", get, put)


def _mapping(module: str, name: str) -> Policy:
    cache = getattr(importlib.import_module(module), name)(ROOM)
    title = f"{module} {importlib.metadata.version(module)} {name}"
    return Policy(title, cache.get, lambda key: cache.__setitem__(key, 1))


def _theine() -> Policy:
    cache = importlib.import_module("theine").Cache(ROOM)
    name = f"theine {importlib.metadata.version('theine')} (W-TinyLFU)"
    return Policy(name, lambda key: True if cache.get(key)[1] else None, lambda key: cache.set(key, 1))


POLICIES: tuple[Callable[[], Policy], ...] = (
    ours,
    lru,
    partial(_mapping, "cachetools", "LRUCache"),
    partial(_mapping, "cachetools", "LFUCache"),
    partial(_mapping, "cachebox", "LRUCache"),
    partial(_mapping, "cachebox", "LFUCache"),
    _theine,
)


def hits() -> Iterator[str]:
    yield "| policy | room | hits | with scans | µs a request |"
    yield "| --- | --- | ---: | ---: | ---: |"
    for make in POLICIES:
        try:
            make()
        except ImportError:
            continue
        began = time.perf_counter()
        ratios = [hit_ratio(make(), scans=scans) for scans in (False, True)]
        seconds = (time.perf_counter() - began) / (2.2 * REQUESTS)
        room = "the bytes of 1,000" if make is ours else "1,000"
        yield f"| {make().name} | {room} | {ratios[0]:.2%} | {ratios[1]:.2%} | {seconds * 1e6:.2f} |"


def response(number: int, *, body: int, tags: int, now: float) -> StoredResponse:
    """As the pipeline makes one: each part a fresh object, unless all responses share it."""
    digest = hashlib.blake2b(b"%d" % number, digest_size=32)
    etag = b'"%b"' % digest.hexdigest()[:32].encode()
    names = [f"product:{number}-{tag}" for tag in range(tags)]
    lines = [("content-length", str(body)), ("content-type", "application/json"), ("cache-control", "no-cache")]
    if names:
        lines.append(("surrogate-key", " ".join(names[:40])))
    created = now + number / 1024 + 0.0001
    return StoredResponse(
        key=digest.digest(),
        status=200,
        headers=share([*((name.encode(), value.encode()) for name, value in lines), (b"etag", etag)]),
        body=bytes(body),
        etag=etag,
        last_modified=None,
        tags=(*names, f"\x01path:/products/{number}", ALL),
        vary=(),
        stamp=Stamp(0, 0, 0, created - 0.01),
        created=created,
        fresh_until=created + 300.0 + number % 30,
        early_refresh_from=created + 290.0 + number % 30,
        fill_seconds=0.01 + number / 1e9,
        early_refresh=1.0,
        stale_while_revalidate=60.0,
        stale_if_error=600.0,
        must_revalidate=False,
        anonymous=True,
    )


def _target(number: int, alias: int) -> tuple[object, ...]:
    return ("http", b"shop.example:%d" % number, f"/products/{number}", b"page=%d" % (100 * number + alias))


def _fill(store: MemoryStore[StoredResponse], numbers: range, body: int, tags: int, aliases: int, now: float) -> None:
    for number in numbers:
        stored = response(number, body=body, tags=tags, now=now)
        store.put(stored.key, stored, weigh(stored), stored.usable_until, now)
        for alias in range(aliases):
            store.alias(_target(number, alias), stored.key)


def memory() -> Iterator[str]:
    yield "| limit | body | tags | aliases | state | responses | counted | tracemalloc | of the limit |"
    yield "| ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |"
    for mib, body, tags, aliases in (
        (4, 100, 0, 0),
        (4, 100, 3, 1),
        (4, 1024, 3, 1),
        (4, 1024, 60, 8),
        (64, 4096, 3, 1),
        (64, 65_536, 3, 1),
        (64, 1 << 20, 3, 1),
    ):
        store: MemoryStore[StoredResponse]
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        store = MemoryStore(mib << 20)
        count = 0
        while not store.statistics().evicted_for_room:
            _fill(store, range(count, count + 50), body, tags, aliases, 0.0)
            count += 50
        for state, numbers, now in (
            ("full", range(0), 0.0),
            ("after as many more", range(count, 2 * count), 0.0),
            ("after all expired", range(2 * count, 3 * count), 1e6),
        ):
            _fill(store, numbers, body, tags, aliases, now)
            gc.collect()
            traced = tracemalloc.get_traced_memory()[0] - before
            held = store.statistics()
            yield (
                f"| {mib} MiB | {body:,} | {tags} | {aliases} | {state} | {held.responses:,} "
                f"| {held.size_bytes:,} | {traced:,} | {traced / held.max_bytes:.2%} |"
            )
        tracemalloc.stop()


def _each(call: Callable[[Any], object], arguments: list[Any]) -> float:
    """Nanoseconds a call, less those of an empty one: the best of nine rounds."""

    def nothing(_: Any) -> None:
        return

    def once(function: Callable[[Any], object]) -> float:
        began = time.perf_counter_ns()
        for argument in arguments:
            function(argument)
        return (time.perf_counter_ns() - began) / len(arguments)

    return min(once(call) for _ in range(9)) - min(once(nothing) for _ in range(9))


def costs() -> Iterator[str]:
    yield "| call | ns |"
    yield "| --- | ---: |"
    store: MemoryStore[StoredResponse] = MemoryStore(64 << 20)
    responses = [response(number, body=1024, tags=3, now=0.0) for number in range(1000)]
    _fill(store, range(1000), 1024, 3, 1, 0.0)
    weights = {stored.key: weigh(stored) for stored in responses}
    yield f"| `at`, a target as the request brings it | {_each(store.at, [_target(n, 0) for n in range(1000)]):.0f} |"
    yield f"| `at`, a target that leads nowhere | {_each(store.at, [_target(n, 1) for n in range(1000)]):.0f} |"
    yield f"| `get` | {_each(store.get, list(weights)):.0f} |"
    yield f"| `weigh` | {_each(weigh, responses):.0f} |"

    def put(stored: StoredResponse) -> None:
        store.put(stored.key, stored, weights[stored.key], stored.usable_until, 0.0)

    yield f"| `put` in place of a response | {_each(put, responses):.0f} |"
    store = MemoryStore(1 << 20)
    fresh = iter(range(1 << 30))

    def put_new(_: object) -> None:
        store.put(b"%032d" % next(fresh), responses[0], 2000, 300.0, 0.0)

    yield f"| `put` of a new one into a full store | {_each(put_new, responses):.0f} |"


def main() -> None:
    print(f"Python {platform.python_version()}, {platform.machine()}\n")
    for title, rows in (
        (f"Share of hits: {REQUESTS:,} requests, Zipf 0.9 over {KEYS:,} keys, room for {ROOM:,}", hits),
        ("Bytes", memory),
        ("Cost of a call", costs),
    ):
        print(f"### {title}\n")
        for row in rows():
            print(row, flush=True)
        print()


if __name__ == "__main__":
    main()
