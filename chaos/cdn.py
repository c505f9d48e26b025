"""A CDN in front of the replicas. It keeps each response until a purge of one of its tags, and misbehaves at purges.

It runs in the process that makes the load, so that its answers have times of the same clock. Replicas send it purges
by a `Webhook`. Of three purges it refuses one, answers it late, or cuts its connection before or after it obeys.

It does not keep two kinds of responses: those requested before a purge of one of their tags, and those of a replica
without a lease. `CacheMiddleware(downstream=...)` would forbid a CDN to keep the latter, but the app here leaves that
option out, because it switches off the quickest way of a hit.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import Sequence
from typing import Self

from chaos.client import Answer, Connection

__all__ = ["CDN"]

_PATIENCE = 1.5
_TROUBLE_SHARE = 0.33


class CDN:
    """The CDN; `told` counts the purges by what became of their requests."""

    def __init__(self, seed: str) -> None:
        self.told: Counter[str] = Counter()
        self._draw = random.Random(f"{seed} cdn")
        self._server: asyncio.Server | None = None
        self._kept: dict[str, Answer] = {}
        # Purges are numbered. These are the number of the last one, and the last numbers of each tag and of everything.
        self._purges = 0
        self._purged: dict[str, int] = {}
        self._all = 0
        # Set when the faults are over: from then on it obeys every purge.
        self.well = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._server is not None
        self._server.close()

    @property
    def url(self) -> str:
        """The URL that takes purges."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/purge"

    # -- requests of clients --------------------------------------------------------------------

    async def get(self, path: str, origins: Sequence[Connection], replica: int) -> tuple[Answer, bool]:
        """The kept response and True, or a replica's answer and False. Raises `Lost` if the replica does not answer."""
        kept = self._kept.get(path)
        if kept is not None:
            return kept, True
        began = self._purges
        answer = await origins[replica].ask("GET", path, _PATIENCE)
        tags = answer.fields.get("surrogate-key", "").split()
        live = answer.fields.get("x-live") == "1"
        if (
            answer.status == 200
            and live
            and tags
            and began >= max(self._all, *(self._purged.get(tag, 0) for tag in tags))
        ):
            self._kept[path] = answer
        return answer, False

    # -- purges of replicas ---------------------------------------------------------------------

    def _purge(self, tags: Sequence[str], *, everything: bool) -> None:
        self._purges += 1
        self._purged.update(dict.fromkeys(tags, self._purges))
        self._all = self._purges if everything else self._all
        for path, answer in list(self._kept.items()):
            if everything or not set(tags).isdisjoint(answer.fields["surrogate-key"].split()):
                del self._kept[path]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError):  # the replica was killed
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
                if not await self._told(json.loads(await reader.readexactly(length)), writer):
                    break
        writer.close()

    async def _told(self, order: dict[str, object], writer: asyncio.StreamWriter) -> bool:
        """Obey a purge or misbehave; False if the connection has to end."""
        trouble = "" if self.well or self._draw.random() >= _TROUBLE_SHARE else self._draw.choice(_TROUBLES)
        self.told[trouble or "confirmed"] += 1
        if trouble == "late":
            await asyncio.sleep(self._draw.uniform(0.1, 0.6))
        if trouble not in ("refused", "to wait", "cut off"):
            tags = order["tags"]
            assert isinstance(tags, list)
            self._purge(tags, everything=bool(order["everything"]))
        if trouble in ("cut off", "obeyed and cut off"):
            return False
        status = {"refused": b"503 Service Unavailable", "to wait": b"429 Too Many Requests"}.get(trouble, b"200 OK")
        writer.write(b"HTTP/1.1 %s\r\ncontent-length: 0\r\n\r\n" % status)
        await writer.drain()
        return True


_TROUBLES = ("refused", "to wait", "cut off", "obeyed and cut off", "late")
