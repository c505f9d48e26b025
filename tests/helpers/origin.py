"""An origin by script: what it answers to each path, what it was asked, and the cache before it."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from typing import Any

from fastapi_cacheinval import CacheMiddleware, HeaderOptions, HTTPCache
from fastapi_cacheinval.grammar.dates import format_date
from fastapi_cacheinval.testing import FakeClock
from tests.helpers.http import Call, Pairs, ask, pairs_of, scope_of

__all__ = ["Origin"]


class Origin:
    """An ASGI app without a framework, cached by its headers on a clock of its own.

    `says` queues answers; the last one of a path is repeated. `asked` are the requests that came
    through, each as its scope.
    """

    def __init__(
        self, options: HeaderOptions | bool = True, *, emit_surrogate_key: bool = True, **settings: Any
    ) -> None:
        self.clock = FakeClock()
        self.cache = HTTPCache(clock=self.clock, **settings)
        self.app = CacheMiddleware(
            self._answer, cache=self.cache, honour_headers=options, emit_surrogate_key=emit_surrogate_key
        )
        self.asked: list[Any] = []
        self.bodies: list[bytes] = []
        self.gate: asyncio.Event | None = None
        self._script: dict[str, deque[Any]] = defaultdict(deque)

    def says(
        self,
        headers: Pairs | dict[str, str] = (),
        body: bytes = b"content",
        *,
        status: int = 200,
        path: str = "/",
        chunks: list[bytes] | None = None,
        error: Exception | None = None,
        cut: bool = False,
    ) -> None:
        """Queue an answer; `chunks` are sent one by one; `error` is raised instead; `cut` ends the body early."""
        fields = pairs_of(headers)
        self._script[path].append((status, fields, chunks or [body], error, cut))

    def forget(self, path: str = "/") -> None:
        """Drop what is queued for a path."""
        self._script[path].clear()

    def date(self, offset: float = 0) -> str:
        """An HTTP date so many seconds from now."""
        return format_date(self.clock.wall() + offset).decode()

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append({**scope, "headers": [*scope["headers"]]})
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.bodies.append(body)
        script = self._script[scope["path"]]
        status, fields, chunks, error, cut = script[0] if len(script) == 1 else script.popleft()
        if self.gate is not None:
            await self.gate.wait()
        if error is not None:
            raise error
        await send({"type": "http.response.start", "status": status, "headers": fields})
        for index, chunk in enumerate(chunks):
            more = index + 1 < len(chunks) or cut
            await send({"type": "http.response.body", "body": chunk, "more_body": more})
        if cut:
            raise RuntimeError("the origin broke off")

    async def get(self, path: str = "/", headers: Any = None, **more: Any) -> Any:
        """One GET, or what `method` says."""
        return await ask(self.app, path, headers=headers, **more)

    def call(self, path: str = "/", headers: Any = None, **more: Any) -> Call:
        """One request begun."""
        return Call(self.app, scope_of(path, headers=headers, **more))

    def sent(self, name: str, index: int = -1) -> list[bytes]:
        """The lines of a request field as they came to the origin."""
        return [value for key, value in self.asked[index]["headers"] if key == name.encode()]

    @property
    def forwards(self) -> int:
        """How many requests came through."""
        return len(self.asked)

    async def reused(self, **first: Any) -> bool:
        """Whether a second GET is answered by what the first one stored."""
        before = self.forwards
        await self.get(**first)
        await self.get()
        return self.forwards == before + 1
