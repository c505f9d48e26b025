"""The one place where rows are kept: a counter for each, behind a Unix socket that every replica reads and writes.

A line comes in, a line goes out: `read ROW ...` gives the rows' versions, `write ROW NUMBER LIFE` commits the next one.
It runs in the process that makes the load, so that a commit has a time on the same clock as what clients see.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from chaos.history import Commit

__all__ = ["Authority", "Rows"]


class Authority:
    """The server's side; `commits` holds what each numbered write has become."""

    def __init__(self, path: Path) -> None:
        self._path = path
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
                writer.write(self._answer(line.decode().split()).encode() + b"\n")
                await writer.drain()
        except OSError:  # the replica was killed
            return
        finally:
            writer.close()

    def _answer(self, words: Sequence[str]) -> str:
        if words[0] == "read":
            return " ".join(str(self._versions.get(int(row), 0)) for row in words[1:])
        row, number, life = int(words[1]), int(words[2]), words[3]
        version = self._versions[row] = self._versions.get(row, 0) + 1
        self.commits[number] = Commit(version, time.monotonic(), life)
        return str(version)


class Rows:
    """The replica's side: one connection for each call."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def _ask(self, *words: object) -> list[int]:
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            writer.write(" ".join(map(str, words)).encode() + b"\n")
            return [int(word) for word in (await reader.readline()).split()]
        finally:
            writer.close()

    async def read(self, rows: Sequence[int]) -> dict[int, int]:
        """The versions that are committed now."""
        return dict(zip(rows, await self._ask("read", *rows), strict=True))

    async def write(self, row: int, number: int, life: str) -> int:
        """Commit the row's next version."""
        (version,) = await self._ask("write", row, number, life)
        return version
