"""Driving an app by plain ASGI calls, so that a test sees each message at the moment it is sent."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from fastapi import FastAPI

from fastapi_cacheinval import CacheMiddleware, HTTPCache
from fastapi_cacheinval.testing import FakeClock

Message = dict[str, Any]
Fields = Iterable[tuple[str, str]]


class Answer:
    """What a call got: the raw messages, and their parts as httpx names them."""

    def __init__(self, messages: list[Message]) -> None:
        self.messages = messages
        (start,) = [message for message in messages if message["type"] == "http.response.start"]
        self.status_code: int = start["status"]
        self.raw: list[tuple[bytes, bytes]] = list(start.get("headers", ()))
        self.headers = {name.decode(): value.decode("latin-1") for name, value in self.raw}
        self.body = b"".join(
            message.get("body", b"") for message in messages if message["type"] == "http.response.body"
        )

    def __repr__(self) -> str:
        return f"<Answer {self.status_code} {self.body!r} {self.headers!r}>"

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def purge(self) -> str | None:
        """What the answer says of its purge."""
        return self.headers.get("cacheinval-purge")


def http_scope(
    method: str,
    target: str,
    *,
    headers: Fields = (),
    host: str = "shop.test",
    root_path: str = "",
    scheme: str = "http",
) -> dict[str, Any]:
    """A scope as servers make it; `target` is the decoded path with its raw query."""
    path, _, query = target.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": root_path,
        "headers": [(b"host", host.encode()), *((name.encode(), value.encode()) for name, value in headers)],
        "client": ("127.0.0.1", 1234),
        "server": ("127.0.0.1", 80),
        "state": {},
        "extensions": {},
    }


class Call:
    """A request under way: `messages` are what was sent up to now, `task` ends with the app."""

    def __init__(
        self,
        app: Any,
        scope: dict[str, Any],
        body: bytes = b"",
        on_send: Callable[[Message], Awaitable[None]] | None = None,
    ) -> None:
        self.messages: list[Message] = []
        self._app = app
        self._scope = scope
        self._body = body
        self._asked = False
        self._on_send = on_send
        self.task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        await self._app(self._scope, self._receive, self._send)

    async def _receive(self) -> Message:
        if self._asked:
            await asyncio.get_running_loop().create_future()
        self._asked = True
        return {"type": "http.request", "body": self._body, "more_body": False}

    async def _send(self, message: Message) -> None:
        if self._on_send is not None:
            await self._on_send(message)
        self.messages.append(message)

    @property
    def started(self) -> bool:
        """Whether the client has seen the start of a response."""
        return bool(self.messages)

    async def answer(self) -> Answer:
        """Wait for the app's end; raises what it raised."""
        await self.task
        return Answer(self.messages)


def begin(app: Any, method: str, target: str, body: bytes = b"", **scope: Any) -> Call:
    """Begin a request and do not wait for it."""
    return Call(app, http_scope(method, target, **scope), body)


async def ask(app: Any, method: str, target: str, body: bytes = b"", **scope: Any) -> Answer:
    """One request, to its end."""
    return await begin(app, method, target, body, **scope).answer()


async def get(app: Any, target: str, **scope: Any) -> Answer:
    """A GET, to its end."""
    return await ask(app, "GET", target, **scope)


async def settle() -> None:
    """Let the loop run until nothing on it is ready: everything that waits, waits for something else."""
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]  # there is no public way to ask
    await asyncio.sleep(0)
    while ready:  # noqa: ASYNC110  # there is no event for "nothing is ready"
        await asyncio.sleep(0)


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait for what other threads do, up to a deadline in real seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.001)


class Shop:
    """An app with a cache on a clock of its own, and a value that handlers read and write."""

    def __init__(self, *, app: FastAPI | None = None, cache: HTTPCache | None = None, **options: Any) -> None:
        self.clock = FakeClock()
        self.cache = HTTPCache(clock=self.clock) if cache is None else cache
        self.app = FastAPI() if app is None else app
        self.app.add_middleware(CacheMiddleware, cache=self.cache, **options)
        self.value = 1
        self.reads = 0

    def read(self) -> int:
        """Read the value, counted."""
        self.reads += 1
        return self.value

    async def get(self, target: str, **scope: Any) -> Answer:
        """A GET, to its end."""
        return await get(self.app, target, **scope)

    async def put(self, target: str, **scope: Any) -> Answer:
        """A PUT, to its end."""
        return await ask(self.app, "PUT", target, **scope)

    async def kept(self, target: str, **scope: Any) -> bool:
        """Whether a GET is answered from the cache; where it is not, it is filled by this."""
        return "; hit" in (await self.get(target, **scope)).headers.get("cache-status", "")
