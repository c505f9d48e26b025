"""Reads without a lock beside writes from other threads."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import inf
from threading import Barrier

import pytest

from fastapi_cacheinval.stores.memory import MemoryStore

KEYS = [b"key-%d" % number for number in range(64)]


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Threads take turns as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def _write(store: MemoryStore[tuple[bytes, int]], seed: int, start: Barrier) -> None:
    draw = random.Random(seed)
    start.wait()
    for step in range(3000):
        key = draw.choice(KEYS)
        match draw.randrange(8):
            case 0:
                store.remove(key)
            case 1 if not step % 500:
                store.clear()
            case 2 | 3:
                store.alias(("http", key), key)
            case _:
                store.put(key, (key, step), draw.randrange(2000), step + draw.choice((1.0, 50.0, inf)), float(step))


def _read(store: MemoryStore[tuple[bytes, int]], seed: int, start: Barrier) -> int:
    draw = random.Random(seed)
    wrong = 0
    start.wait()
    for _ in range(20_000):
        key = draw.choice(KEYS)
        for value in (store.get(key), store.at(("http", key))):
            wrong += value is not None and value[0] != key
    return wrong


@pytest.mark.usefixtures("eager_switching")
def test_readers_never_see_another_keys_value_while_writers_work():
    """Two readers and two writers on 64 keys in a store for 30: each read gives its own key's value or nothing."""
    store: MemoryStore[tuple[bytes, int]] = MemoryStore(40 * 1024)
    start = Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(_write, store, seed, start) for seed in (1, 2)]
        readers = [pool.submit(_read, store, seed, start) for seed in (3, 4)]
        assert [reader.result() for reader in readers] == [0, 0]
        for writer in writers:
            writer.result()
    assert store.statistics().evicted_for_room > 0
    for key in KEYS:
        store.remove(key)
    assert store.statistics()[:2] == (0, 0)
    store.clear()
    assert store.statistics().size_bytes == MemoryStore[int](40 * 1024).statistics().size_bytes


@pytest.mark.usefixtures("eager_switching")
def test_a_reader_never_goes_back_to_an_older_value():
    """While one thread replaces a key's value, another sees its versions in order, by key and by alias alike."""
    store: MemoryStore[int] = MemoryStore(64 * 1024)
    store.put(b"key", 0, 100, inf, 0.0)
    store.alias(("/",), b"key")
    start = Barrier(2)

    def replace() -> None:
        start.wait()
        for version in range(1, 5000):
            store.put(b"key", version, 100, inf, 0.0)

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(replace)
        start.wait()
        last = 0
        while last < 4999:
            for seen in (store.get(b"key"), store.at(("/",))):
                assert seen is not None
                assert seen >= last
                last = seen
        writer.result()
