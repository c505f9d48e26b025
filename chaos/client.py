"""A small HTTP client with one kept-alive connection, which raises `Lost` if it gets no answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

__all__ = ["Address", "Answer", "Connection", "Lost", "answers"]

Address = int | Path
"""A port of 127.0.0.1, or a Unix socket."""


class Lost(Exception):
    """No answer: refused, reset, ended early, or not in time."""


class Answer(NamedTuple):
    """Status, fields by lower-case name (the last of each), and body."""

    status: int
    fields: Mapping[str, str]
    body: bytes


async def _connected(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(address, Path):
        return await asyncio.open_unix_connection(address)
    return await asyncio.open_connection("127.0.0.1", address)


class Connection:
    """A client of one address; it connects at the first request, and again after the connection was closed."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, seconds: float, fields: Mapping[str, str] | None = None) -> Answer:
        """Send a request and wait `seconds` for the answer. Raises `Lost`, and then the connection is closed."""
        lines = [f"{method} {path} HTTP/1.1", "host: chaos"]
        lines += [f"{name}: {text}" for name, text in (fields or {}).items()]
        if method != "GET":
            lines.append("content-length: 0")
        request = "\r\n".join([*lines, "", ""]).encode()
        try:
            async with asyncio.timeout(seconds):
                return await self._exchange(request)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            self.close()
            raise Lost(type(error).__name__) from error
        except BaseException:
            self.close()
            raise

    async def _exchange(self, request: bytes) -> Answer:
        if self._streams is None:
            self._streams = await _connected(self._address)
        reader, writer = self._streams
        writer.write(request)
        first, *rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
        fields = {name.strip().lower(): text.strip() for name, _, text in (line.partition(":") for line in rest)}
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        if fields.get("connection", "").lower() == "close":
            self.close()
        return Answer(int(first.split()[1]), fields, body)

    def close(self) -> None:
        """Abort the connection."""
        if self._streams is not None:
            with contextlib.suppress(RuntimeError):  # its event loop has ended
                self._streams[1].transport.abort()
            self._streams = None


def answers(address: Address, path: str) -> bool:
    """Whether the address answers. Do not call it in a running event loop."""

    async def ask() -> bool:
        connection = Connection(address)
        try:
            await connection.ask("GET", path, 5.0)
        except Lost:
            return False
        finally:
            connection.close()
        return True

    return asyncio.run(ask())
