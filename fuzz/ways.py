"""The same raw requests to two servers with the cache: one answers hits in its protocol, the other in the app."""

from __future__ import annotations

import re
import tempfile
import time
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import Any

from fastapi_cacheinval.testing.servers.ports import free_port
from fastapi_cacheinval.uvicorn import CacheProtocol
from fuzz.raw import PATIENCE, Tried, said, served
from fuzz.stories import FORGET, Story, closing, story

__all__ = ["ANSWERED", "Counting", "masked", "run_ways"]

ANSWERED = "/answered-by-the-server"
"""A page that no app has: a server that counts says there how many requests it has answered itself."""

# The clock's: what a response says of time moves on between two servers.
_TIMES = re.compile(rb"(?<=\r\n)(date: [^\r]*|age: \d+)(?=\r\n)|(?<=; ttl=)\d+")


class Counting(CacheProtocol):
    """The protocol, which says how often it answered."""

    answered = 0

    def _answered(self, head: Any) -> bool:
        if head.path == ANSWERED:
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n%08d" % Counting.answered)
            return True
        done = super()._answered(head)
        Counting.answered += done
        return done


def masked(data: bytes) -> bytes:
    """Everything that a server said but the time."""
    return _TIMES.sub(b"*", data)


def _ask(port: int) -> int:
    told = Story((), (b"GET %b HTTP/1.1\r\nHost: test\r\n\r\n" % ANSWERED.encode(),))
    return int(said(port, told)[-8:])


def _first_difference(told: Story, one: bytes, other: bytes) -> str:
    for ours, theirs in zip_longest(one.split(b"\r\n"), other.split(b"\r\n")):
        if ours != theirs:
            return f"in the protocol: {ours!r}\n  in the app: {theirs!r}\n  sent: {told.packets!r}"[:4_000]
    return "no difference"


def run_ways(mode: str, seed: str, *, seconds: float, most: int = 10**9) -> Tried:
    """Send stories for so long, or so many: every byte but the time has to be the same. Hits are the protocol's own."""
    tried, rng = Tried(mode, "in the protocol and in the app"), Random(f"{seed} {mode} ways")
    ports = [free_port(), free_port()]
    with tempfile.TemporaryDirectory() as folder:
        fleets = [
            served(mode, http, Path(folder), cache="1", name=name)
            for name, http in (("raw", "fuzz.ways:Counting"), ("app", "httptools"))
        ]
        try:
            for fleet, port in zip(fleets, ports, strict=True):
                fleet.start_on([port])
            end = time.monotonic() + seconds
            while time.monotonic() < end and tried.stories < most:
                told = story(rng)
                one, other = (masked(said(port, told)) for port in ports)
                if one != other and not told.broken:
                    # A busy machine may have been slow: both are asked again, and now have the same in store.
                    one, other = (masked(said(port, told, PATIENCE)) for port in ports)
                tried.stories += 1
                tried.requests += len(told.requests)
                if one != other and not told.broken:
                    tried.found.append(_first_difference(told, one, other))
                if told.broken:
                    for port in ports:
                        said(port, FORGET)
                        said(port, Story((), (closing("DELETE", "/items/1"),)))
            tried.results["hit"] = _ask(ports[0])
        finally:
            for fleet in fleets:
                fleet.close()
    return tried
