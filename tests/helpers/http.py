"""Requests by hand: plain ASGI scopes in, every message out, and waiting for conditions."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI, Header, Query, Response
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates
from fastapi_cacheinval.grammar.cache_status import CacheStatus, parse_cache_status
from fastapi_cacheinval.testing import FakeClock

Pairs = Iterable[tuple[str | bytes, str | bytes]]

# Real seconds after which a condition that has not come true fails its test.
PATIENCE = 20.0


def _raw(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")


def pairs_of(headers: Mapping[str, str | bytes] | Pairs | None) -> list[tuple[bytes, bytes]]:
    """Header fields as ASGI carries them."""
    if headers is None:
        return []
    items: Any = headers.items() if isinstance(headers, Mapping) else headers
    return [(_raw(name).lower(), _raw(value)) for name, value in items]


def scope_of(path: str = "/", *, method: str = "GET", headers: Any = None, host: Any = "test", **more: Any) -> Any:
    """An HTTP scope as a server makes it; a query may stand in the path."""
    path, _, query = path.partition("?")
    fields = pairs_of(headers)
    if host is not None:
        fields.insert(0, (b"host", _raw(host)))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "surrogatepass"),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": fields,
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 80),
        "state": {},
        "extensions": {},
        **more,
    }


class Answer:
    """What came back: the messages as they were sent, and what they say together."""

    def __init__(self, messages: list[Any]) -> None:
        self.messages = messages
        start = next(message for message in messages if message["type"] == "http.response.start")
        self.status_code: int = start["status"]
        self.raw: list[tuple[bytes, bytes]] = [(bytes(name), bytes(value)) for name, value in start.get("headers", ())]
        self.headers = httpx.Headers(self.raw)
        self.chunks = [bytes(each.get("body", b"")) for each in messages if each["type"] == "http.response.body"]
        self.body = b"".join(self.chunks)

    def __repr__(self) -> str:
        return f"<Answer {self.status_code} {self.body[:80]!r} {self.raw!r}>"

    def fields(self, name: str) -> list[bytes]:
        """The values of each line of a field."""
        return [value for key, value in self.raw if key == name.encode()]

    @property
    def cache(self) -> CacheStatus | None:
        """What the cache says of itself."""
        ours = [each for line in self.fields("cache-status") for each in parse_cache_status(line)]
        return next((each for each in reversed(ours) if each.cache == "cacheinval"), None)


class Call:
    """One request under way: what has been sent so far, and a client that can read slowly or go away."""

    def __init__(self, app: Any, scope: Any, *, before_send: Callable[[Any], Awaitable[None]] | None = None) -> None:
        self.messages: list[Any] = []
        self.received = 0
        self._gone = asyncio.Event()
        self._before_send = before_send
        self.task: asyncio.Task[None] = asyncio.get_running_loop().create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> Any:
        self.received += 1
        if self.received == 1:
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if self._before_send is not None:
            await self._before_send(message)
        self.messages.append(message)

    def go_away(self) -> None:
        """Close the client's side."""
        self._gone.set()

    @property
    def started(self) -> bool:
        """Whether the response has begun."""
        return any(message["type"] == "http.response.start" for message in self.messages)

    @property
    def body(self) -> bytes:
        """What of the body has come."""
        return b"".join(each.get("body", b"") for each in self.messages if each["type"] == "http.response.body")

    async def answer(self) -> Answer:
        """Wait for the app to return."""
        await asyncio.wait_for(asyncio.shield(self.task), PATIENCE)
        return Answer(self.messages)


async def ask(app: Any, path: str = "/", **more: Any) -> Answer:
    """Send one request and wait for all of its response."""
    return await Call(app, scope_of(path, **more)).answer()


async def until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Let other tasks run until a condition holds; fails after a deadline."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true"
        await asyncio.sleep(0)


async def settle(rounds: int = 50) -> None:
    """Let every task that can run do so: for facts of the kind "nothing more happens"."""
    for _ in range(rounds):
        await asyncio.sleep(0)


@asynccontextmanager
async def lifespan_of(app: Any) -> AsyncIterator[dict[str, Any]]:
    """Run an app's lifespan by hand; gives the lifespan's state."""
    inbox: asyncio.Queue[Any] = asyncio.Queue()
    outbox: asyncio.Queue[Any] = asyncio.Queue()
    state: dict[str, Any] = {}
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": state}
    task = asyncio.get_running_loop().create_task(app(scope, inbox.get, outbox.put))
    await inbox.put({"type": "lifespan.startup"})
    begun = await asyncio.wait_for(outbox.get(), PATIENCE)
    assert begun["type"] == "lifespan.startup.complete", begun
    try:
        yield state
    finally:
        await inbox.put({"type": "lifespan.shutdown"})
        await asyncio.wait_for(task, PATIENCE)


class Shop:
    """A small app with a cache on a clock of its own, and a count of what its handlers did."""

    def __init__(
        self, *, middleware: Mapping[str, Any] | None = None, fastapi: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        self.clock = FakeClock()
        self.cache = HTTPCache(clock=self.clock, **options)
        # No jitter, no luck: lifetimes are exact and no early refresh is drawn.
        self.cache._core.engine.draw = lambda: 0.0
        self.app = FastAPI(**(fastapi or {}))
        self.app.add_middleware(CacheMiddleware, cache=self.cache, **(middleware or {}))
        self.calls = 0

    def inside(self, kind: Any, **options: Any) -> None:
        """Put a middleware inside ours."""
        middleware: Any = Middleware
        self.app.user_middleware.append(middleware(kind, **options))

    def count(self) -> int:
        """Note that a handler ran; gives how often that was."""
        self.calls += 1
        return self.calls

    async def ask(self, path: str = "/", **more: Any) -> Answer:
        """One request to the app."""
        return await ask(self.app, path, **more)

    def call(self, path: str = "/", **more: Any) -> Call:
        """One request to the app that is not waited for."""
        return Call(self.app, scope_of(path, **more))

    async def refreshed(self, times: int = 1) -> None:
        """Wait until so many refreshes have ended."""
        await until(
            lambda: (
                sum(self.cache._core.counters.refreshes.values()) >= times and not self.cache.statistics().refreshing
            ),
            "the refresh",
        )


# -- an app with the cache and the same without it ----------------------------------------------


def echoing(*, enabled: bool = True, **options: Any) -> Shop:
    """An app of routes that answer with all that they read; switched off it is the app without the cache."""
    shop = Shop(**options)
    shop.cache.enabled = enabled
    shop.inside(GZipMiddleware, minimum_size=1)
    policy = cached(ttl=60, tags=["it"])

    @shop.app.get("/items/{number}", dependencies=[cached(ttl=60, tags=["item:{number}", "q:{q}"])])
    async def item(number: int, q: str = "none", many: Annotated[list[str] | None, Query()] = None) -> Any:
        return {"number": number, "q": q, "many": many}

    @shop.app.get("/text/{text:path}", dependencies=[cached(ttl=60, tags=["text:{text}"])])
    async def text(text: str, q: str = "") -> Response:
        return Response((text + "|" + q).encode("utf-8", "surrogatepass"), headers={"last-modified": "never"})

    @shop.app.get("/spoken", dependencies=[policy])
    async def spoken(accept_language: Annotated[list[str] | None, Header()] = None, accept: str = Header("")) -> Any:
        return [accept_language, accept]

    @shop.app.get("/plain", dependencies=[policy])
    async def plain() -> str:
        return "plain"

    @shop.app.put("/text/{text:path}", dependencies=[invalidates("text:{text}")])
    async def write(text: str) -> None: ...

    return shop


def plain_of(answer: Answer) -> bytes:
    """The content, unpacked."""
    return gzip.decompress(answer.body) if answer.headers.get("content-encoding") == "gzip" else answer.body


async def same(shop: Shop, uncached: Shop, scope: Any) -> Answer | None:
    """Ask both; the answers must be the same but for what a cache may do."""
    theirs: Answer | None = None
    try:
        theirs = await asked_by_scope(uncached, scope)
    except Exception as error:  # noqa: BLE001  # the framework's own trouble with this input
        with pytest.raises(type(error)):
            await asked_by_scope(shop, scope)
        return None
    began = time.perf_counter()
    ours = await asked_by_scope(shop, scope)
    assert time.perf_counter() - began < 5
    if ours.status_code == 304:
        assert any(name in (b"if-none-match", b"if-modified-since") for name, _ in scope["headers"])
        assert ours.body == b""
        return ours
    assert ours.status_code == theirs.status_code, (ours, theirs)
    assert plain_of(ours) == plain_of(theirs)
    assert ours.headers.get("content-encoding") == theirs.headers.get("content-encoding")
    return ours


async def asked_by_scope(shop: Shop, scope: Any) -> Answer:
    """The answer to a scope, of which each request has a copy."""
    return await Call(shop.app, {**scope, "headers": [*scope["headers"]], "state": {}}).answer()
