"""One HTTP/1.1 request to an origin over a connection of its own, its answer as it came off the wire.

A client of this size on purpose: libraries join field lines, hide interim responses and refuse what
a test suite for caches sends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Self

__all__ = ["Brokenness", "Head", "Upstream"]

Fields = list[tuple[bytes, bytes]]

_LONGEST_HEAD = 1 << 20
_CHUNK = 65_536


class Brokenness(Exception):
    """The origin closed the connection, or sent what is not HTTP, before its answer was complete."""


@dataclass(frozen=True, slots=True)
class Head:
    """A status and its fields, names in lower case, order and duplicates kept."""

    status: int
    fields: Fields

    def first(self, name: bytes) -> bytes | None:
        """The value of the first line of a field."""
        return next((value for key, value in self.fields if key == name), None)


class Upstream:
    """A request on its way; use as an async context manager, which closes the connection."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._method = b""

    async def __aenter__(self) -> Self:
        try:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port, limit=_LONGEST_HEAD)
        except OSError as error:
            raise Brokenness(str(error)) from error
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._writer.close()

    async def ask(self, method: bytes, target: bytes, fields: Fields, body: bytes) -> None:
        """Send the request."""
        self._method = method
        lines = [method + b" " + target + b" HTTP/1.1", *(name + b": " + value for name, value in fields)]
        if body or method in (b"POST", b"PUT", b"PATCH"):
            lines.append(b"content-length: %d" % len(body))
        self._writer.write(b"\r\n".join([*lines, b"connection: close", b"", body]))
        await self._writer.drain()

    async def head(self) -> Head:
        """The next status and fields, which may be of an interim response."""
        try:
            raw = await self._reader.readuntil(b"\r\n\r\n")
            status_line, *lines = raw[:-4].split(b"\r\n")
            pairs = [line.partition(b":") for line in lines]
            return Head(
                int(status_line.split(b" ", 2)[1]),
                [(name.lower(), value.strip(b" \t")) for name, _, value in pairs],
            )
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, ValueError, IndexError) as error:
            raise Brokenness(repr(error)) from error

    async def body(self, head: Head) -> AsyncIterator[bytes]:
        """The content, as it comes; raises `Brokenness` where it ends before its length is reached."""
        length = head.first(b"content-length")
        try:
            if self._method == b"HEAD" or head.status in (204, 304):
                return
            if (head.first(b"transfer-encoding") or b"").lower() == b"chunked":
                async for chunk in self._chunked():
                    yield chunk
            elif length is not None and length.isdigit():
                left = int(length)
                while left:
                    chunk = await self._reader.read(min(left, _CHUNK))
                    if not chunk:
                        raise Brokenness("the body ended early")
                    left -= len(chunk)
                    yield chunk
            else:
                while chunk := await self._reader.read(_CHUNK):
                    yield chunk
        except (asyncio.IncompleteReadError, OSError, ValueError) as error:
            raise Brokenness(repr(error)) from error

    async def _chunked(self) -> AsyncIterator[bytes]:
        while size := int((await self._reader.readline()).split(b";")[0], 16):
            yield await self._reader.readexactly(size)
            await self._reader.readexactly(2)
