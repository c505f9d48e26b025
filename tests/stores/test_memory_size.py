"""What L1 counts against what the interpreter has handed out."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from math import inf

import pytest

from fastapi_cacheinval.core.selecting import VaryRecord
from fastapi_cacheinval.core.stored import StoredResponse, weigh
from fastapi_cacheinval.stores.memory import MemoryStore

MIB = 1 << 20
# The interpreter keeps up to 2,000 freed tuples of each length for itself.
FREE_LISTS = 800_000


@pytest.fixture
def traced(make_response) -> Iterator[Callable[[], int]]:
    """The bytes handed out since the test began and not given back."""
    # What the interpreter keeps for itself when code runs for the first time is no store's.
    _fill(MemoryStore(MIB), make_response, 0, 50, aliases=1, now=0.0)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]

    def now() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before

    yield now
    tracemalloc.stop()


def _fill(store, make_response, first, count, *, aliases, now, **shape) -> None:
    for number in range(first, first + count):
        stored = make_response(number, now=now, **shape)
        store.put(stored.key, stored, weigh(stored), stored.usable_until + 1.0, now)
        for alias in range(aliases):
            target = ("http", b"shop.example:%d" % number, f"/products/{number}", b"page=%d" % (100 * number + alias))
            store.alias(target, stored.key)


SHAPES = {
    "tiny": ({"body": 100, "tags": 0}, 0, MIB, 1250),
    "tiny with aliases": ({"body": 100, "tags": 2}, 1, MIB, 1000),
    "variants": ({"body": 1024, "tags": 3, "variant": True}, 2, MIB, 600),
    "many tags": ({"body": 1024, "tags": 60}, 8, MIB, 250),
    "a mebibyte": ({"body": MIB, "tags": 5}, 1, 64 * MIB, 80),
    "the default limit": ({"body": 64 * 1024, "tags": 3}, 1, 64 * MIB, 1_100),
}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", SHAPES)
def test_counted_bytes_are_the_interpreters(name, traced, make_response):
    """Full, after churn, and after everything expired: counted and traced differ by at most 3 %."""
    shape, aliases, limit, count = SHAPES[name]
    store: MemoryStore[StoredResponse] = MemoryStore(limit)
    _fill(store, make_response, 0, count, aliases=aliases, now=0.0, **shape)
    statistics = store.statistics()
    assert statistics.evicted_for_room > 0
    assert limit - 1.1 * limit / statistics.responses <= statistics.size_bytes <= limit
    assert statistics.size_bytes == pytest.approx(traced(), rel=0.03)

    _fill(store, make_response, count, count // 2, aliases=aliases, now=0.0, **shape)
    assert store.statistics().size_bytes == pytest.approx(traced(), rel=0.03)

    _fill(store, make_response, 2 * count, count // 2, aliases=aliases, now=1e5, **shape)
    assert store.statistics().reclaimed >= statistics.responses // 2
    assert store.statistics().size_bytes == pytest.approx(traced(), rel=0.03)


def test_refreshed_responses_count_both_keys(traced, make_response):
    """A response replaced by a newer one under an equal key that is another object counts to within 3 %."""
    store: MemoryStore[StoredResponse] = MemoryStore(8 * MIB)
    for _ in range(3):
        _fill(store, make_response, 0, 1000, aliases=1, now=0.0, body=100, tags=1)
    statistics = store.statistics()
    assert (statistics.responses, statistics.aliases) == (1000, 1000)
    assert statistics.size_bytes == pytest.approx(traced(), rel=0.03)


def test_purged_and_removed_responses_give_their_bytes_back(traced, make_response):
    """What is removed one by one is freed at once, without a garbage collection, down to the worn tables."""
    store: MemoryStore[StoredResponse] = MemoryStore(8 * MIB)
    keys = [make_response(number).key for number in range(1000)]
    bare = traced()
    gc.disable()
    try:
        _fill(store, make_response, 0, 1000, aliases=2, now=0.0, body=5000, tags=3)
        full = tracemalloc.get_traced_memory()[0]
        for key in keys:
            store.remove(key)
        left = tracemalloc.get_traced_memory()[0]
    finally:
        gc.enable()
    assert store.statistics()[:2] == (0, 0)
    assert full - left > 5 * MIB
    assert left - bare < FREE_LISTS
    assert store.statistics().size_bytes == pytest.approx(traced() - bare, abs=64 * 1024)


def test_clear_frees_everything_at_once(traced, make_response):
    """After clear the store is as large as a new one, without a garbage collection."""
    store: MemoryStore[StoredResponse] = MemoryStore(8 * MIB)
    before = traced()
    gc.disable()
    try:
        _fill(store, make_response, 0, 1000, aliases=2, now=0.0, body=5000, tags=3)
        store.clear()
        left = tracemalloc.get_traced_memory()[0]
    finally:
        gc.enable()
    assert left - before < FREE_LISTS
    assert store.statistics().size_bytes < 6 * 1024


def test_many_lives_open_few_buckets():
    """Lives from milliseconds to years cost a bounded number of buckets, not one for each response."""
    store: MemoryStore[int] = MemoryStore(64 * MIB)
    for number in range(20_000):
        store.put(b"%d" % number, number, 0, 1.0015**number * 0.001, 0.0)
    statistics = store.statistics()
    alone: MemoryStore[int] = MemoryStore(64 * MIB)
    for number in range(20_000):
        alone.put(b"%d" % number, number, 0, inf, 0.0)
    assert statistics.responses == 20_000
    assert statistics.size_bytes - alone.statistics().size_bytes < 200_000


def test_a_vary_record_is_weighed_like_anything_else(traced):
    """Values other than responses take their own word for their weight; a full record's is at most a twentieth short."""
    store: MemoryStore[VaryRecord] = MemoryStore(8 * MIB)
    before = traced()
    for number in range(500):
        record = VaryRecord(b"%032d" % number)
        for variant in range(32):
            record, _ = record.with_variant(
                ((b"accept-%d" % number, False),), b"%032d" % (variant + 100 * number), inf, 32
            )
        store.put(record.key, record, record.weight, record.until, 0.0)
    assert 0.95 < store.statistics().size_bytes / (traced() - before) < 1.2
