"""Nothing is added to, taken from or delayed in what is not cached and purges nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI, Response, WebSocket
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask
from starlette.testclient import TestClient

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from tests.helpers.http import Call, Shop, ask, lifespan_of, scope_of, until

pytestmark = pytest.mark.anyio


class Recorder:
    """A plain ASGI app that sends the given messages and notes what it is given."""

    def __init__(self, *messages: Any) -> None:
        self.messages = messages
        self.scopes: list[Any] = []
        self.heard: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(dict(scope))
        self.heard.append(await receive())
        for message in self.messages:
            await send(message)


METHODS = ["GET", "HEAD", "OPTIONS", "TRACE", "QUERY", "POST", "PUT", "PATCH", "DELETE", "BREW", "get", "", "CONNECT"]


@pytest.mark.parametrize("method", METHODS)
async def test_messages_of_uncached_responses_are_the_very_same_objects(method: str) -> None:
    """By identity, in order, whatever the method: no copy, no buffer, no field."""
    start = {"type": "http.response.start", "status": 200, "headers": [(b"X-Odd", b"1"), (b"set-cookie", b"a=1")]}
    sent = [
        {"type": "http.response.early_hint", "links": []},
        start,
        {"type": "http.response.body", "body": b"a", "more_body": True},
        {"type": "http.response.body", "body": bytearray(b"b"), "more_body": True},
        {"type": "http.response.zerocopysend", "file": 1},
        {"type": "http.response.body"},
        {"type": "http.response.trailers", "headers": []},
        {"type": "http.response.unheard-of"},
    ]
    inner = Recorder(*sent)
    app = CacheMiddleware(inner, cache=HTTPCache())
    answer = await ask(app, "/", method=method)
    assert len(answer.messages) == len(sent)
    assert all(ours is theirs for ours, theirs in zip(answer.messages, sent, strict=True))
    assert start["headers"] == [(b"X-Odd", b"1"), (b"set-cookie", b"a=1")]


async def test_an_uncached_stream_goes_out_byte_by_byte() -> None:
    """Each byte has reached the client before the app is asked for the next."""
    shop = Shop()
    reached: list[bytes] = []
    calls: list[Call] = []

    @shop.app.get("/")
    async def read() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            for number in range(10):
                yield b"%d" % number
                reached.append(calls[0].body)

        return StreamingResponse(chunks())

    calls.append(shop.call())
    await calls[0].answer()
    assert reached == [b"0123456789"[: number + 1] for number in range(10)]


async def test_an_uncached_start_is_not_held_for_its_body() -> None:
    """The status and fields go out while the first chunk is still being made."""
    shop = Shop()
    gate = asyncio.Event()

    @shop.app.get("/")
    async def read() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            await gate.wait()
            yield b"late"

        return StreamingResponse(chunks())

    call = shop.call()
    await until(lambda: call.started)
    assert call.body == b""
    gate.set()
    assert (await call.answer()).body == b"late"


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_background_tasks_of_uncached_routes_run_after_the_answer(method: str) -> None:
    """As without the cache: once, and the client does not wait for them."""
    shop = Shop()
    gate = asyncio.Event()
    runs: list[str] = []

    async def later() -> None:
        await gate.wait()
        runs.append(method)

    @shop.app.api_route("/", methods=["GET", "POST"])
    async def handle() -> Response:
        return Response(b"it", background=BackgroundTask(later))

    call = shop.call(method=method)
    await until(lambda: call.body == b"it")
    assert runs == []
    gate.set()
    await call.answer()
    assert runs == [method]


async def test_an_uncached_app_hears_its_client() -> None:
    """receive() gives the server's own messages."""
    inner = Recorder({"type": "http.response.start", "status": 200, "headers": []}, {"type": "http.response.body"})
    body = {"type": "http.request", "body": b"content", "more_body": True}

    async def receive() -> Any:
        return body

    async def send(message: Any) -> None:
        pass

    await CacheMiddleware(inner, cache=HTTPCache())(scope_of("/", method="GET"), receive, send)
    assert inner.heard[0] is body


async def test_an_uncached_app_sees_the_scope_that_came() -> None:
    """Path, headers, state, extensions: as they were, and nothing is left behind in the scope."""
    inner = Recorder({"type": "http.response.start", "status": 200, "headers": []}, {"type": "http.response.body"})
    scope = scope_of("/a%20b?x=%zz", headers=[("range", "bytes=0-1"), ("if-none-match", "*")], extensions={"x": {}})
    before = dict(scope)

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        pass

    await CacheMiddleware(inner, cache=HTTPCache())(scope, receive, send)
    assert scope == before
    (seen,) = inner.scopes
    assert {key: seen[key] for key in before} == before
    assert seen["state"] is scope["state"]


@pytest.mark.parametrize("kind", ["websocket", "http.something", "mystery", "webtransport"])
async def test_other_kinds_of_scope_pass_untouched(kind: str) -> None:
    """The very scope, receive and send reach the app."""
    given: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        given.append((scope, receive, send))

    async def receive() -> Any: ...

    async def send(message: Any) -> None: ...

    scope = {"type": kind, "path": "/"}
    await CacheMiddleware(inner, cache=HTTPCache())(scope, receive, send)
    assert given[0][0] is scope
    assert given[0][1] is receive
    assert given[0][2] is send
    assert scope == {"type": kind, "path": "/"}


def test_websockets_work_beside_cached_routes() -> None:
    """Also where an app-wide policy covers their route."""
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=HTTPCache())

    @app.get("/ws", dependencies=[cached(ttl=60)])
    async def read() -> str:
        return "it"

    @app.websocket("/ws")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text((await websocket.receive_text()).upper())
        await websocket.close()

    with TestClient(app) as client:
        for _ in range(2):
            assert client.get("/ws").json() == "it"
            with client.websocket_connect("/ws") as there:
                there.send_text("hello")
                assert there.receive_text() == "HELLO"


async def test_the_apps_own_lifespan_runs_and_its_state_reaches_requests() -> None:
    """Start-up before, shutdown after, and lifespan state as without the cache."""
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        events.append("start")
        yield {"database": "db"}
        events.append("stop")

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    async with lifespan_of(app) as state:
        assert events == ["start"]
        assert state == {"database": "db"}
    assert events == ["start", "stop"]


async def test_a_lifespan_message_that_is_unheard_of_passes() -> None:
    """Only start-up and shutdown are the cache's business."""
    heard: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.unheard-of"})

    async def receive() -> Any: ...

    async def send(message: Any) -> None:
        heard.append(message)

    await CacheMiddleware(inner, cache=HTTPCache())({"type": "lifespan"}, receive, send)
    assert heard == [{"type": "lifespan.unheard-of"}]


async def test_an_error_of_an_uncached_app_is_its_own() -> None:
    """The very exception object comes out, before and after the response has begun."""
    error = RuntimeError("of the app")

    for early in (True, False):

        async def inner(scope: Any, receive: Any, send: Any, early: bool = early) -> None:
            if not early:
                await send({"type": "http.response.start", "status": 200, "headers": []})
            raise error

        with pytest.raises(RuntimeError) as caught:
            await ask(CacheMiddleware(inner, cache=HTTPCache()), "/")
        assert caught.value is error


async def test_a_second_middleware_passes_through() -> None:
    """Two in one stack, or one in a mounted app: one says and stores, the other is silent."""
    shop = Shop()
    shop.app.add_middleware(CacheMiddleware, cache=HTTPCache())

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> int:
        return shop.count()

    for _ in range(3):
        assert len((await shop.ask()).fields("cache-status")) == 1
    assert shop.calls == 1


class Once(Response):
    """What answers with fields that can be read once, as ASGI lets them: a server reads them once."""

    def __init__(self, status: int, fields: list[tuple[bytes, bytes]], *, whole: bool) -> None:
        super().__init__()
        self.status, self.fields, self.whole = status, fields, whole

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": iter(self.fields)})
        if not self.whole:
            await send({"type": "http.response.body", "body": b"pa", "more_body": True})
        await send({"type": "http.response.body", "body": b"page" if self.whole else b"ge"})


class Filters:
    """A layer that hands on what a filter leaves of the fields."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def filtered(message: Any) -> None:
            if "headers" in message:
                message = {**message, "headers": filter(None, message["headers"])}
            await send(message)

        await self.app(scope, receive, filtered)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("by_headers", [True, False])
@pytest.mark.parametrize("place", ["mounted", "bare", "layer", "route", "cached", "behind a layer", "behind the app"])
@pytest.mark.parametrize("control", [[], [(b"cache-control", b"max-age=60")], [(b"cache-control", b"no-store")]])
@pytest.mark.parametrize(
    ("method", "status"), [("GET", 200), ("HEAD", 200), ("POST", 201), ("POST", 422), ("GET", 404)]
)
async def test_fields_that_can_be_read_once_reach_the_client(
    method: str, status: int, control: list[tuple[bytes, bytes]], place: str, by_headers: bool, whole: bool
) -> None:
    """Whoever reads them on their way, all of an answer's fields leave with it, in their order."""
    said = [(b"content-type", b"text/html"), *control, (b"x-a", b"1"), (b"x-a", b"2")]
    site = Once(status, said, whole=whole)
    app = FastAPI()

    async def read() -> Response:
        answer = Response(b"page", status)
        answer.raw_headers = [(b"content-length", b"4"), *said]
        return answer if place.startswith("behind") else site

    if place == "mounted":
        app.mount("/", site)
    elif place == "layer":
        app.add_middleware(lambda inner: site)
    else:
        dependencies = [cached(ttl=60)] if place in ("cached", "behind a layer") and method == "GET" else []
        app.add_api_route("/", read, methods=[method], dependencies=dependencies)
    if place == "behind a layer":
        app.add_middleware(Filters)
    inner: Any = {"bare": site, "behind the app": Filters(app)}.get(place, app)
    outer = CacheMiddleware(inner, cache=HTTPCache(), honour_headers=by_headers)
    for _ in range(2):
        answer = await ask(outer, "/", method=method)
        assert answer.status_code == status
        assert [line for line in answer.raw if line[0] in (b"content-type", b"x-a")] == [said[0], *said[-2:]]
