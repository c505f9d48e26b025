"""What is held of bodies beside what is stored: nothing by idle connections, and a bounded sum for slow clients."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import tracemalloc
from collections.abc import AsyncIterator, Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from starlette.middleware.base import BaseHTTPMiddleware

from fastapi_cacheinval import CacheMiddleware, CacheTags, HTTPCache, add_tags, cached, invalidates
from fastapi_cacheinval.engine.body_budget import BodyBudget, Reservation
from fastapi_cacheinval.framework import streaming
from fastapi_cacheinval.framework.exchange import Exchange
from fastapi_cacheinval.framework.filling import Fill
from fastapi_cacheinval.framework.keeping import Keeping
from tests.servers import until

SIZE = 256 * 1024
CONNECTIONS = 30


async def through(request: Request, call_next: Any) -> Any:
    """Middleware that does nothing, and runs the app in a task of its own."""
    return await call_next(request)


def app_of(kind: str, cache: HTTPCache) -> FastAPI:
    """An app whose answers are each as large as the next, and different."""
    app = FastAPI()
    if kind == "layered":
        app.add_middleware(BaseHTTPMiddleware, dispatch=through)
    headers = kind.startswith("headers")
    app.add_middleware(CacheMiddleware, cache=cache, honour_headers=headers)
    declared = [] if headers else [cached(ttl=60, tags=["item:{number}"], statuses={200, 404})]
    fields = {"cache-control": "public, max-age=60"} if headers else {}

    def body(number: int) -> bytes:
        return b"%08d" % number * (SIZE // 8)

    async def chunks(number: int) -> AsyncIterator[bytes]:
        for start in range(0, SIZE, SIZE // 8):
            yield body(number)[start : start + SIZE // 8]

    @app.get("/item/{number}", dependencies=declared)
    async def read(number: int, tags: CacheTags) -> Response:
        add_tags("seen")
        tags.add("taken")
        if kind == "error":
            raise LookupError(body(number))
        if kind.endswith("streamed"):
            return StreamingResponse(chunks(number), headers=fields)
        return Response(body(number), status_code=404 if kind == "missing" else 200, headers=fields)

    @app.put("/item/{number}", dependencies=[invalidates("item:{number}")])
    async def write(number: int, request: Request) -> Response:
        await request.body()
        return Response(body(number))

    return app


@contextmanager
def served(app: FastAPI) -> Generator[int]:
    """The app under uvicorn in a thread of this process; the port."""
    config = uvicorn.Config(app, port=0, log_level="critical", http="h11", timeout_keep_alive=60)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started, "the server")
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)


def asked(port: int, number: int, method: str = "GET") -> socket.socket:
    """One request on a connection of its own, answered to the end; the connection stays."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(b"%s /item/%d HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n" % (method.encode(), number))
    received = bytearray()
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    head, _, rest = bytes(received).partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    if b"content-length" in fields:
        left = int(fields[b"content-length"]) - len(rest)
        while left > 0:
            left -= len(connection.recv(65536))
    else:
        while not rest.endswith(b"0\r\n\r\n"):
            rest = rest[-8:] + connection.recv(65536)
    return connection


def under_way(before: list[object] | None = None) -> list[object]:
    """Every request that the cache has not let go of, but for those of `before`: an error of another test may hold some."""
    gc.collect()
    known = {id(each) for each in before or ()}
    return [each for each in gc.get_objects() if isinstance(each, Exchange | Fill | Keeping) and id(each) not in known]


KINDS = ["plain", "streamed", "layered", "layered streamed", "headers", "headers streamed", "missing", "error"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_idle_connections_hold_nothing_of_their_last_response(kind: str, method: str) -> None:
    """Thirty kept-alive connections after a miss or a mutation each: no request is alive, and no body that is not stored."""
    # Room for none of the bodies: all that is held of them is held by the connections.
    cache = HTTPCache(l1_max_bytes=64 * 1024)
    before = under_way()
    with served(app_of(kind, cache)) as port, ExitStack() as connections:
        for number in range(3):
            asked(port, number, method).close()
        gc.collect()
        tracemalloc.start()
        try:
            for number in range(CONNECTIONS):
                connections.callback(asked(port, number, method).close)
            until(lambda: not under_way(before), "the end of all requests")
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # A server's own buffers and parsers, far below one body each.
        assert held < CONNECTIONS * SIZE / 5, f"{held / 2**20:.1f} MiB"


def test_a_context_that_outlives_its_request_adds_no_tags_to_it() -> None:
    """A task that the request has begun is told that no request is at hand."""
    app, told = FastAPI(), []
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    later: list[asyncio.Task[None]] = []

    ended = threading.Event()
    before = under_way()

    async def late() -> None:
        await asyncio.to_thread(ended.wait, 20)
        told.append(add_tags("late"))

    @app.get("/task", dependencies=[cached(ttl=60)])
    async def task() -> str:
        told.append(add_tags("now"))
        later.append(asyncio.get_running_loop().create_task(late()))
        return "begun"

    with served(app) as port:
        connection = socket.create_connection(("127.0.0.1", port), timeout=20)
        connection.sendall(b"GET /task HTTP/1.1\r\nhost: test\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        until(lambda: not under_way(before), "the end of the request")
        ended.set()
        until(lambda: len(told) == 2, "the task's end")
        connection.close()
    assert told == [True, False]


# -- slow clients -----------------------------------------------------------------------------------


class Slow:
    """A GET whose client takes the start and then nothing until it is let."""

    def __init__(self, app: Any, path: str) -> None:
        self.received: list[bytes] = []
        self.fields: dict[bytes, bytes] = {}
        self.taking = asyncio.Event()
        self._told = False
        scope = {
            "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": [(b"host", b"test")], "scheme": "http", "root_path": "", "http_version": "1.1",
            "server": ("test", 80), "client": ("1.2.3.4", 5), "asgi": {"version": "3.0"},
        }  # fmt: skip
        self.task = asyncio.get_running_loop().create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> Any:
        if self._told:
            await asyncio.Event().wait()
        self._told = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.fields = dict(message["headers"])
            return
        await self.taking.wait()
        self.received.append(message.get("body", b""))


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["streamed", "layered streamed", "headers streamed"])
async def test_streams_of_slow_clients_hold_no_more_than_the_sum(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past `max_in_flight_bytes` a stream goes at its client's pace and is not stored; all clients get every byte."""
    # On a busy machine the first streams would be whole, and give back their room, before the last have begun.
    monkeypatch.setattr(streaming, "_TAKEN_FOR_WHOLE", 60.0)
    most = 5 * SIZE
    cache = HTTPCache(max_in_flight_bytes=most)
    app = app_of(kind, cache)
    clients = [Slow(app, f"/item/{number}") for number in range(20)]
    seen = 0
    for _ in range(300):
        await asyncio.sleep(0)
        seen = max(seen, cache.statistics().in_flight_bytes)
        assert cache.statistics().in_flight_bytes <= most
    assert seen > most / 2
    for client in clients:
        client.taking.set()
    await asyncio.gather(*(client.task for client in clients))
    for number, client in enumerate(clients):
        assert b"".join(client.received) == b"%08d" % number * (SIZE // 8)
    statistics = cache.statistics()
    assert statistics.in_flight_bytes == 0
    assert 1 <= statistics.fills["stored"] < 20
    assert statistics.fills["stored"] + statistics.fills["refused"] == 20
    # Room again: the next one is stored.
    client = Slow(app, "/item/100")
    client.taking.set()
    await client.task
    assert cache.statistics().fills["stored"] == statistics.fills["stored"] + 1
    await cache.stop()


@pytest.mark.anyio
async def test_no_room_at_all_says_why_and_stores_no_stream() -> None:
    """`max_in_flight_bytes=0`: a stream is let through from its first chunk, a whole body is stored as ever."""
    cache = HTTPCache(max_in_flight_bytes=0)
    client = Slow(app_of("streamed", cache), "/item/1")
    client.taking.set()
    await client.task
    assert b"detail=in-flight" in client.fields[b"cache-status"]
    whole = Slow(app_of("plain", cache), "/item/2")
    whole.taking.set()
    await whole.task
    assert b"stored" in whole.fields[b"cache-status"]
    assert cache.statistics().fills == {"refused": 1, "stored": 1}
    await cache.stop()


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["streamed", "layered streamed", "headers streamed"])
async def test_a_slow_client_that_goes_away_gives_back_what_was_held_for_it(kind: str) -> None:
    """Cancelled in the middle of its stream: the sum is nothing again."""
    cache = HTTPCache()
    client = Slow(app_of(kind, cache), "/item/1")
    for _ in range(100):
        await asyncio.sleep(0)
    assert cache.statistics().in_flight_bytes > 0
    client.task.cancel()
    await asyncio.wait((client.task,))
    assert cache.statistics().in_flight_bytes == 0
    await cache.stop()


def test_a_reservation_gives_back_no_more_than_it_holds() -> None:
    """Growing is all or nothing; shrinking and closing stop at nothing, and others keep what is theirs."""
    budget = BodyBudget(100)
    one, two = Reservation(budget), Reservation(budget)
    assert one.grow(60)
    assert not two.grow(41)
    assert two.grow(40)
    one.shrink(1_000)
    one.close()
    assert budget.held_bytes == 40
    two.close()
    two.close()
    assert budget.held_bytes == 0
    assert one.grow(100)
