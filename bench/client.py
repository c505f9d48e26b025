"""A small load generator: connections that ask for numbered URLs one after another.

`python -m bench.client PORT URLS CONNECTIONS SECONDS PAUSE` prints what it saw as JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from functools import partial

__all__ = ["Connection", "load", "main"]


class Connection(asyncio.Protocol):
    """One kept-alive connection; it asks again `pause` seconds after each answer, or at once."""

    def __init__(self, requests: list[bytes], seed: int, pause: float, latencies: list[float]) -> None:
        self._requests = requests
        self._draw = random.Random(seed)
        self._pause = pause
        self._latencies = latencies
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.TimerHandle | None = None
        self._began = 0.0
        self._head = b""
        self._missing = -1
        self.errors = 0
        self.bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._pause:
            # Spread over one pause, so that the connections do not ask in step.
            self._waiting = asyncio.get_running_loop().call_later(self._draw.random() * self._pause, self._ask)
        else:
            self._ask()

    def _ask(self) -> None:
        if self._transport is not None:
            self._began = time.perf_counter()
            self._transport.write(self._draw.choice(self._requests))

    def data_received(self, data: bytes) -> None:
        self.bytes += len(data)
        if self._missing < 0:
            self._head += data
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._head = b""
            if b" 200 " not in head[:15]:
                self.errors += 1
            self._missing = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]) - len(rest)
        else:
            self._missing -= len(data)
        if self._missing == 0:
            self._missing = -1
            self._latencies.append(time.perf_counter() - self._began)
            if self._pause:
                self._waiting = asyncio.get_running_loop().call_later(self._pause, self._ask)
            else:
                self._ask()

    def stop(self) -> None:
        """Ask no more."""
        if self._waiting is not None:
            self._waiting.cancel()
        if self._transport is not None:
            self._transport.abort()
            self._transport = None


def _same(protocol: Connection) -> Connection:
    return protocol


async def load(port: int, urls: int, connections: int, seconds: float, pause: float) -> dict[str, float]:
    """Ask for so many seconds; requests, errors and latencies in milliseconds."""
    requests = [f"GET /items/{number} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode() for number in range(urls)]
    latencies: list[float] = []
    loop = asyncio.get_running_loop()
    protocols = [Connection(requests, seed, pause, latencies) for seed in range(connections)]
    for protocol in protocols:
        await loop.create_connection(partial(_same, protocol), "127.0.0.1", port)
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    for protocol in protocols:
        protocol.stop()
    latencies.sort()
    return {
        "requests": len(latencies),
        "per_second": len(latencies) / took,
        "errors": sum(protocol.errors for protocol in protocols),
        "p99_ms": latencies[int(len(latencies) * 0.99)] * 1000 if latencies else 0.0,
        "slowest_ms": latencies[-1] * 1000 if latencies else 0.0,
        "over_50_ms": sum(latency > 0.05 for latency in latencies),
    }


def main() -> None:
    """Load as the arguments say."""
    port, urls, connections, seconds, pause = sys.argv[1:]
    seen = asyncio.run(load(int(port), int(urls), int(connections), float(seconds), float(pause)))
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
