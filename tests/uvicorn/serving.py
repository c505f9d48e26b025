"""A uvicorn in the test's own loop, and connections to it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import Any

from uvicorn import Config, Server

from fastapi_cacheinval.uvicorn import CacheProtocol

__all__ = ["Connection", "Counting", "Site", "serving"]


class Counting(CacheProtocol):
    """The protocol, which counts what it answers itself."""

    answered = 0

    def _answered(self, head: Any) -> bool:
        done = super()._answered(head)
        Counting.answered += done
        return done


@dataclass
class Connection:
    """A client that writes bytes, and reads answers that say how long they are."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, *lines: str, method: str = "GET") -> bytes:
        """One request, and its answer: the first of `lines` is its target, the others are fields."""
        target, *fields = lines
        if not any(line.lower().startswith("host:") for line in fields):
            fields = ["Host: test", *fields]
        head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{line}\r\n" for line in fields) + "\r\n"
        self.writer.write(head.encode("latin-1"))
        return await self.answer(method)

    async def answer(self, method: str = "GET") -> bytes:
        """The next answer."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length")), 0)
        if method == "HEAD" or head.startswith((b"HTTP/1.1 304", b"HTTP/1.1 204")):
            length = 0
        return head + await self.reader.readexactly(length)

    async def ended(self) -> bool:
        """Whether the server closes the connection without another word."""
        return not await self.reader.read()


@dataclass
class Site:
    """A server, its port, and how often it has answered itself since it was asked last."""

    server: Server
    port: int
    _before: int = 0
    _open: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self, **options: Any) -> Connection:
        """A new connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, **options)
        self._open.append(writer)
        return Connection(reader, writer)

    def own(self) -> int:
        """How many requests the protocol has answered since the last call."""
        count, self._before = Counting.answered - self._before, Counting.answered
        return count

    def close(self) -> None:
        """End all connections."""
        for writer in self._open:
            writer.close()


@asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[Site]:
    """The app under uvicorn with the protocol, in this loop, on a free port."""
    chosen: dict[str, Any] = {"http": Counting, "log_config": None, "access_log": False, "timeout_graceful_shutdown": 2}
    server = Server(Config(app, **{**chosen, **options}))
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        serves = asyncio.create_task(server._serve([listening]))  # without its signal handlers
        while not server.started:
            if serves.done():
                serves.result()
                raise RuntimeError("the server has not started")
            await asyncio.sleep(0.001)
        site = Site(server, listening.getsockname()[1], Counting.answered)
        try:
            yield site
        finally:
            site.close()
            server.should_exit = True
            await serves
