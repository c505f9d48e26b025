"""Which responses L1 keeps when there is no room for all."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from math import inf

import pytest

from fastapi_cacheinval.stores.memory import NODE_BYTES, MemoryStore

KEYS = 100_000
ROOM = 1000
WEIGHT = 2300


def _key(number: int) -> bytes:
    return b"%032d" % number


def _zipf(count: int, *, scans: bool) -> Iterator[tuple[int, bool]]:
    draw = random.Random(9).random
    shares = list(accumulate(rank**-0.9 for rank in range(1, KEYS + 1)))
    for number in range(1, count + 1):
        yield bisect_left(shares, draw() * shares[-1]), True
        if scans and number % 50_000 == 0:
            yield from ((KEYS + number + step, False) for step in range(10_000))


@pytest.mark.parametrize("scans", [False, True])
def test_the_share_of_hits(scans):
    """Of 100,000 requests, Zipf 0.9 over 10^5 keys, at least 43 % hit with room for 10^3, scans or not."""
    store: MemoryStore[bool] = MemoryStore(ROOM * (WEIGHT + NODE_BYTES + 65))
    hits = requests = 0
    for number, counts in _zipf(100_000, scans=scans):
        hit = store.get(_key(number)) is not None
        if not hit:
            store.put(_key(number), True, WEIGHT, inf, 0.0)
        requests += counts
        hits += counts and hit
    assert requests == 100_000
    assert hits / requests > 0.43


def test_a_scan_leaves_what_is_in_use():
    """After 20,000 keys that are never asked for again, nine in ten of those in use are still there."""
    store: MemoryStore[int] = MemoryStore(ROOM * (WEIGHT + NODE_BYTES + 65))
    for _ in range(3):
        for number in range(800):
            if store.get(_key(number)) is None:
                store.put(_key(number), number, WEIGHT, inf, 0.0)
    for number in range(20_000):
        store.put(_key(KEYS + number), number, WEIGHT, inf, 0.0)
    assert sum(store.get(_key(number)) is not None for number in range(800)) >= 720


def test_a_replaced_response_keeps_its_uses():
    """A response that is refreshed is worth as much as the one it replaces."""
    store: MemoryStore[int] = MemoryStore(64 * 1024)
    store.put(b"used", 0, 1000, inf, 0.0)
    store.get(b"used")
    store.put(b"used", 1, 1000, inf, 0.0)
    for number in range(55):
        store.put(_key(number), number, 1000, inf, 0.0)
    assert store.statistics().evicted_for_room > 0
    assert store.get(b"used") == 1
    assert store.get(_key(0)) is None


def test_a_key_that_returns_soon_enters_the_main_part():
    """What left the small part and comes back soon outlives newcomers that are asked for as rarely."""
    store: MemoryStore[int] = MemoryStore(64 * 1024)
    for number in range(60):
        store.put(_key(number), number, 1000, inf, 0.0)
    gone = max(number for number in range(60) if store.get(_key(number)) is None)
    store.put(_key(gone), gone, 1000, inf, 0.0)
    for number in range(100, 140):
        store.put(_key(number), number, 1000, inf, 0.0)
    assert store.get(_key(gone)) == gone
    assert store.get(_key(100)) is None


def test_popularity_that_moves_is_followed():
    """What nobody asks for any more, however popular it was, makes room: a new set of two thirds of the store soon stays."""
    store: MemoryStore[int] = MemoryStore(1 << 20)
    for era in range(3):
        for _ in range(12):
            for number in range(500):
                key = b"%d-%d" % (era, number)
                if store.get(key) is None:
                    store.put(key, number, 1000, inf, 0.0)
        assert sum(store.get(b"%d-%d" % (era, number)) is not None for number in range(500)) > 450
