"""Replicas in processes of their own, which record the arrival of bare messages.

`python -m bench.fleet URL COUNT FILE` forks COUNT replicas, and ends at the bare message "stop". The file has two
numbers for each replica: the last message, and the time of its arrival on the clock that all processes share.
"""

from __future__ import annotations

import asyncio
import gc
import mmap
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from fastapi_cacheinval import HTTPCache

__all__ = ["BARE", "Arrivals", "fleet", "settled"]

BARE = "bare"
_STOP = b"stop"
_SLOT = struct.Struct("dd")
_PATIENCE = 60.0


class Arrivals:
    """The file, for the process that waits for messages to arrive."""

    def __init__(self, shared: mmap.mmap, count: int) -> None:
        self._shared = shared
        self._count = count

    def last(self, message: int) -> float | None:
        """The time at which the last replica got a message; None while one still lacks it."""
        slots = [_SLOT.unpack_from(self._shared, _SLOT.size * each) for each in range(self._count)]
        return max(at for _, at in slots) if all(number == message for number, _ in slots) else None


def settled() -> None:
    """Collect garbage, and exclude all other objects from collection, so that no pause of it is measured."""
    gc.collect()
    gc.freeze()


async def _replica(url: str, shared: mmap.mmap, number: int) -> None:
    cache = HTTPCache.from_url(url)
    await cache.start()
    client: Any = Redis.from_url(url)
    pubsub = client.pubsub()
    await pubsub.subscribe(BARE)
    settled()
    async for message in pubsub.listen():
        now = time.monotonic()
        if message["data"] == _STOP:
            break
        count = float(message["data"]) if message["type"] == "message" else 0.0
        _SLOT.pack_into(shared, _SLOT.size * number, count, now)
    await pubsub.aclose()
    await client.aclose()
    await cache.stop()


@contextmanager
def fleet(url: str, count: int) -> Iterator[Arrivals]:
    """`count` replicas, once all of them serve."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(_SLOT.pack(-1.0, 0.0) * count)
        file.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.fleet", url, str(count), file.name], cwd=Path(__file__).parent.parent
        )
        try:
            with mmap.mmap(file.fileno(), 0) as shared:
                arrivals = Arrivals(shared, count)
                deadline = time.monotonic() + _PATIENCE
                while arrivals.last(0) is None:
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError("the replicas did not start")
                    time.sleep(0.01)
                yield arrivals
                asyncio.run(_stop(url))
                process.wait(_PATIENCE)
        finally:
            process.kill()
            process.wait()


async def _stop(url: str) -> None:
    client: Any = Redis.from_url(url)
    await client.publish(BARE, _STOP)
    await client.aclose()


def _main(url: str, count: str, path: str) -> None:
    with Path(path).open("r+b") as file, mmap.mmap(file.fileno(), 0) as shared:
        children = []
        for number in range(int(count)):
            child = os.fork()
            if not child:
                asyncio.run(_replica(url, shared, number))
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)


if __name__ == "__main__":
    _main(*sys.argv[1:])
