"""The one place where rows are kept: a counter for each, behind a Unix socket that every replica reads and writes.

A line comes in, a line goes out: `read ROW ...` gives the rows' versions, `write ROW NUMBER LIFE` commits the next one.
`take` gives an event of the other program that writes, and `over NUMBER LIFE` reports that it is purged.
It runs in the process that makes the load, so that commits and the reads of clients have times of the same clock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self

from chaos.history import Commit

__all__ = ["Authority", "Rows"]


class Queue(Protocol):
    """The queue of events, as `chaos.events` has it."""

    def take(self) -> str: ...
    def over(self, number: int, life: str) -> None: ...
    def cuts(self) -> bool: ...


class Authority:
    """The server's side; `commits` holds the commit of each numbered write."""

    def __init__(self, path: Path, events: Queue) -> None:
        self._path = path
        self._events = events
        self._server: asyncio.Server | None = None
        self._versions: dict[int, int] = {}
        self.commits: dict[int, Commit] = {}

    async def __aenter__(self) -> Self:
        # Hundreds of handlers connect at once in a burst, and must not be refused.
        self._server = await asyncio.start_unix_server(self._serve, self._path, backlog=4096)
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            if line.endswith(b"\n"):
                answer = self._answer(line.decode().split()).encode() + b"\n"
                cut = line.startswith(b"take") and self._events.cuts()
                writer.write(answer[: len(answer) // 2] if cut else answer)
                await writer.drain()
        except OSError:  # the replica was killed
            return
        finally:
            writer.close()

    def _answer(self, words: Sequence[str]) -> str:
        if words[0] == "read":
            return " ".join(str(self._versions.get(int(row), 0)) for row in words[1:])
        if words[0] == "take":
            return self._events.take()
        if words[0] == "over":
            self._events.over(int(words[1]), words[2])
            return ""
        return str(self.commit(int(words[1]), int(words[2]), words[3]))

    def commit(self, row: int, number: int, life: str = "") -> int:
        """Commit the row's next version; without a `life`, for the other program."""
        version = self._versions[row] = self._versions.get(row, 0) + 1
        self.commits[number] = Commit(version, time.monotonic(), life)
        return version


class Rows:
    """The replica's side: one connection for each call."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def ask(self, *words: object) -> list[str]:
        """The words of the answer; raises `ConnectionError` where it is cut off."""
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            writer.write(" ".join(map(str, words)).encode() + b"\n")
            line = await reader.readline()
            if not line.endswith(b"\n"):
                raise ConnectionError("the authority's answer was cut off")
            return line.decode().split()
        finally:
            writer.close()

    async def read(self, rows: Sequence[int]) -> dict[int, int]:
        """The versions that are committed now."""
        return dict(zip(rows, map(int, await self.ask("read", *rows)), strict=True))

    async def write(self, row: int, number: int, life: str) -> int:
        """Commit the row's next version."""
        (version,) = await self.ask("write", row, number, life)
        return int(version)
