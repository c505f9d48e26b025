"""Raw requests over real sockets: a server with the cache and one without it are asked the same."""

from __future__ import annotations

import re
import socket
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from fastapi_cacheinval.testing.servers.fleet import Fleet
from fastapi_cacheinval.testing.servers.ports import free_port, listens
from fuzz.stories import FORGET, Story, story
from fuzz.transcripts import differences, replies

__all__ = ["PATIENCE", "Tried", "run", "said", "served"]

_ROOT = Path(__file__).parents[1]
# A request that is never finished is not answered: both servers wait for the rest of it.
_SILENCE = 0.3
# On a busy machine a server may be slow to answer, so a difference is looked at twice.
PATIENCE = 3.0


@dataclass(slots=True)
class Tried:
    """How much was tried, and what differed."""

    mode: str
    server: str
    stories: int = 0
    requests: int = 0
    results: Counter[str] = field(default_factory=Counter[str])
    found: list[str] = field(default_factory=list[str])

    def row(self) -> str:
        """A line of the report."""
        hits = self.results["hit"]
        return (
            f"| raw requests, {self.mode}, {self.server} | {self.stories:,} connections, {self.requests:,} requests "
            f"| {hits:,} | {len(self.found)} |"
        )


def _command(server: str) -> list[str]:
    return [
        sys.executable, "-m", "uvicorn", "fuzz.app:app", "--factory", "--host", "127.0.0.1", "--http", server,
        "--no-access-log", "--log-level", "error", "--timeout-keep-alive", "30",
    ]  # fmt: skip


def served(mode: str, server: str, directory: Path, *, cache: str, name: str = "fuzz") -> Fleet:
    """Processes of the app in a mode; `cache` is "1" with the cache, "0" without it."""
    return Fleet(
        f"{name}-{mode}-{cache}",
        lambda port: [*_command(server), "--port", str(port)],
        listens,
        directory=directory,
        environment={"FUZZ_MODE": mode, "FUZZ_CACHE": cache},
        cwd=_ROOT,
    )


def said(port: int, told: Story, silence: float = _SILENCE) -> bytes:
    """What a server answers to a story, until it closes the connection or waits for more."""
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.settimeout(silence)
        received = b""
        try:
            for packet in told.packets:
                client.sendall(packet)
            while data := client.recv(65_536):
                received += data
        except OSError:
            # It has closed the connection before all was sent, or it waits.
            pass
        # Redirects name the server that they come from.
        return received.replace(b"127.0.0.1:%d" % port, b"127.0.0.1")


def _judge(tried: Tried, told: Story, ports: list[int]) -> None:
    cached, bare = (replies(said(port, told)) for port in ports)
    if differences(told, cached, bare):
        # What a story writes is the same each time.
        cached, bare = (replies(said(port, told, PATIENCE)) for port in ports)
    tried.stories += 1
    tried.requests += len(told.requests)
    for reply in cached:
        status = reply.field(b"cache-status") or b""
        tried.results["hit" if status.startswith(b"cacheinval; hit") else "other"] += 1
    for difference in differences(told, cached, bare):
        tried.found.append(f"{difference}\n  sent: {_shortened(told.packets)}")


def _shortened(packets: tuple[bytes, ...]) -> str:
    return re.sub(r"(.)\1{40,}", r"\1\1\1...", repr(packets))


def run(mode: str, server: str, seed: str, *, seconds: float, most: int = 10**9) -> Tried:
    """Send stories for so long, or so many."""
    tried, rng = Tried(mode, server), Random(f"{seed} {mode} {server}")
    ports = [free_port(), free_port()]
    with tempfile.TemporaryDirectory() as folder:
        fleet = served(mode, server, Path(folder), cache="1")
        bare = served(mode, server, Path(folder), cache="0")
        try:
            fleet.start_on(ports[:1])
            bare.start_on(ports[1:])
            end = time.monotonic() + seconds
            while time.monotonic() < end and tried.stories < most:
                told = story(rng)
                _judge(tried, told, ports)
                if told.broken:
                    # One server may have come as far as a write and the other not.
                    for port in ports:
                        said(port, FORGET)
        finally:
            fleet.close()
            bare.close()
    return tried
