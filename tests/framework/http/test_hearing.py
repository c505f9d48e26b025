"""The app hears its request once and its client's disconnect in time, in every mode: streams are whole, bodies arrive.

Each app is asked twice: as it is, and behind the cache in every mode. What comes back must be the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from fastapi_cacheinval.contrib.cdn import Varnish, varnish_headers
from tests.helpers.http import Answer, pairs_of, scope_of, settle, until

pytestmark = pytest.mark.anyio

# Real seconds after which a request that does not end has failed.
PATIENCE = 20.0
_EMPTY = ({"type": "http.request", "body": b"", "more_body": False},)


class Client:
    """A client as strict servers have it: its messages once, then a disconnect when it leaves or has its answer."""

    def __init__(self, app: Any, scope: Any, messages: Any = _EMPTY) -> None:
        self._left = asyncio.Event()
        self._waiting = [*messages]
        self.messages: list[Any] = []
        self.task = asyncio.get_running_loop().create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> Any:
        if self._waiting:
            return self._waiting.pop(0)
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.messages.append(message)
        trailers = self.messages[0].get("trailers", False)
        last = "http.response.trailers" if trailers else "http.response.body"
        if message["type"] == last and not message.get("more_body", False) and not message.get("more_trailers", False):
            self.leave()

    def leave(self) -> None:
        """Close the client's side."""
        self._left.set()

    async def answer(self) -> Answer:
        """Wait for the app to return."""
        await asyncio.wait_for(self.task, PATIENCE)
        return Answer(self.messages)


# -- the apps -----------------------------------------------------------------------------------

Make = Callable[[Any], Any]


def _start(headers: Any, **more: Any) -> Any:
    return {"type": "http.response.start", "status": 200, "headers": pairs_of(headers), **more}


def _chunk(body: bytes, *, more: bool = True) -> Any:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def _chunks(count: int = 20, size: int = 10) -> AsyncIterator[bytes]:
    for number in range(count):
        yield b"%d" % (number % 10) * size
        await asyncio.sleep(0)


def streams(headers: Any) -> Any:
    """A stream of a framework that listens for a disconnect beside it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await StreamingResponse(_chunks(), headers=headers)(scope, receive, send)

    return app


def too_large(headers: Any) -> Any:
    """A stream of more bytes than the cache takes, beside which the framework listens."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await StreamingResponse(_chunks(30, 1000), headers=headers)(scope, receive, send)

    return app


def events(headers: Any) -> Any:
    """Server-sent events."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        response = StreamingResponse(_chunks(), headers=headers, media_type="text/event-stream")
        await response(scope, receive, send)

    return app


def behind_dispatch(headers: Any) -> Any:
    """FastAPI with a middleware by `@app.middleware("http")` that does nothing."""
    app = FastAPI()

    @app.get("/")
    async def read() -> StreamingResponse:
        return StreamingResponse(_chunks(), headers=headers)

    @app.middleware("http")
    async def nothing(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    return app


def body_before_dispatch(headers: Any) -> Any:
    """FastAPI with a middleware that reads the request's body before it passes the request on."""
    app = FastAPI()

    @app.get("/")
    async def read(request: Request) -> StreamingResponse:
        await request.body()
        return StreamingResponse(_chunks(), headers=headers)

    @app.middleware("http")
    async def reads(request: Request, call_next: Any) -> Any:
        await request.body()
        return await call_next(request)

    return app


def listens(headers: Any) -> Any:
    """An app that reads its request and then, beside the stream, takes any message for the end, as Django's does."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body", False):
            pass

        async def answer() -> None:
            await send(_start(headers))
            async for chunk in _chunks():
                await send(_chunk(chunk))
            await send(_chunk(b"", more=False))

        listening, answering = asyncio.ensure_future(receive()), asyncio.ensure_future(answer())
        await asyncio.wait({listening, answering}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            answering.cancel()
            raise RuntimeError(f"heard {listening.result()['type']} before the end")
        listening.cancel()

    return app


def reads_late(headers: Any) -> Any:
    """An app that reads its request only after its response has begun, and says what it has heard."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(_start(headers))
        heard = await receive()
        await send(_chunk(f"{heard['type']} {heard.get('more_body', False)}".encode(), more=False))

    return app


def length_first(headers: Any) -> Any:
    """A stream whose last bytes come before its end: what follows them still runs."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(_start([*pairs_of(headers), (b"content-length", b"6")]))
        await send(_chunk(b"123"))
        await send(_chunk(b"456"))
        heard = asyncio.ensure_future(receive())
        await settle()
        scope["state"]["heard"] = heard.result() if heard.done() else None
        await send(_chunk(b"", more=False))
        scope["state"]["then"] = await heard

    return app


def waits_for_the_end(headers: Any) -> Any:
    """An app that answers and then waits until its client is gone."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(_start(headers))
        await send(_chunk(b"said", more=False))
        while (await receive())["type"] != "http.disconnect":
            pass

    return app


def works_on(headers: Any) -> Any:
    """A response with a background task."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def work() -> None:
            await settle()
            scope["state"]["worked"] = True

        response = StreamingResponse(_chunks(), headers=headers, background=BackgroundTask(work))
        await response(scope, receive, send)

    return app


def two_listen(headers: Any) -> Any:
    """An app of which two tasks wait for the client at once, from the beginning."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        heard: list[str] = []

        async def listen() -> None:
            while not heard or heard[-1] != "http.disconnect":
                heard.append((await receive())["type"])

        listening = [asyncio.ensure_future(listen()) for _ in range(2)]
        await send(_start(headers))
        async for chunk in _chunks():
            await send(_chunk(chunk))
        await settle()
        await send(_chunk(" ".join(heard).encode(), more=False))
        await asyncio.gather(*listening)

    return app


def trails(headers: Any) -> Any:
    """A response with trailers, beside which the app listens."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        listening = asyncio.ensure_future(receive())
        await send(_start(headers, trailers=True))
        await send(_chunk(b"body", more=False))
        await settle()
        heard = listening.result()["type"] if listening.done() else "nothing"
        await send({"type": "http.response.trailers", "headers": [(b"heard", heard.encode())], "more_trailers": False})
        await listening

    return app


APPS: dict[str, Make] = {
    make.__name__: make
    for make in (
        streams,
        too_large,
        events,
        behind_dispatch,
        body_before_dispatch,
        listens,
        reads_late,
        length_first,
        waits_for_the_end,
        works_on,
        two_listen,
        trails,
    )
}


# -- the modes ----------------------------------------------------------------------------------


def _by_headers(app: Any, **more: Any) -> Any:
    return CacheMiddleware(app, cache=HTTPCache(max_body_bytes=10_000), honour_headers=True, **more)


def by_headers(app: Any) -> Any:
    """Steered by headers."""
    return _by_headers(app)


def by_headers_with_a_cdn(app: Any) -> Any:
    """Steered by headers, with a CDN in front."""
    return _by_headers(app, downstream=varnish_headers(Varnish("http://127.0.0.1:1")))


def switched_off(app: Any) -> Any:
    """Steered by headers, with the cache switched off."""
    wrapped = _by_headers(app)
    wrapped.cache.enabled = False
    return wrapped


def without_a_policy(app: Any) -> Any:
    """With policies, on a route that has none."""
    return CacheMiddleware(app, cache=HTTPCache(max_body_bytes=10_000))


def _in_a_route(app: Any, *kinds: Any) -> Any:
    """The app as the response of a route with a policy, `kinds` of middleware before it."""
    outer = FastAPI()

    class Sends(Response):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await app(scope, receive, send)

    @outer.get("/", dependencies=[cached(ttl=60, shared=True)])
    async def read() -> Response:
        return Sends()

    for kind in kinds:
        outer.middleware("http")(kind)
    return CacheMiddleware(outer, cache=HTTPCache(max_body_bytes=10_000))


async def _nothing(request: Request, call_next: Any) -> Any:
    return await call_next(request)


async def _reads(request: Request, call_next: Any) -> Any:
    await request.body()
    return await call_next(request)


def by_policy(app: Any) -> Any:
    """A route with a policy."""
    return _in_a_route(app)


def by_policy_behind_dispatch(app: Any) -> Any:
    """A route with a policy behind a middleware that does nothing."""
    return _in_a_route(app, _nothing)


def by_policy_behind_a_reader(app: Any) -> Any:
    """A route with a policy behind a middleware that reads the request's body first."""
    return _in_a_route(app, _reads)


MODES: dict[str, Callable[[Any], Any]] = {
    mode.__name__: mode
    for mode in (
        by_headers,
        by_headers_with_a_cdn,
        switched_off,
        without_a_policy,
        by_policy,
        by_policy_behind_dispatch,
        by_policy_behind_a_reader,
    )
}

# What an app says of caching: stored, refused, refused late, stored by heuristics, none of it.
WORDS = {
    "stored": {"cache-control": "max-age=60"},
    "no-store": {"cache-control": "no-store"},
    "cookie": {"set-cookie": "a=b", "cache-control": "max-age=60"},
    "silent": {},
}


@pytest.mark.parametrize(("words", "method"), [*((words, "GET") for words in WORDS), ("stored", "HEAD")])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", APPS)
async def test_what_the_app_answers_is_what_the_client_gets(kind: str, mode: str, words: str, method: str) -> None:
    """No mode cuts a response, repeats a request to the app, or keeps it from hearing that its client is gone."""
    if kind in ("behind_dispatch", "body_before_dispatch") and (mode.startswith("by_policy") or method == "HEAD"):
        # Routers of their own: these answer HEAD with 405, and are no response.
        mode = "by_headers"
        method = "GET"
    if kind == "trails" and "_behind_" in mode:
        # Starlette's middleware of this kind passes no trailers on.
        mode = "by_policy"
    bare = await Client(APPS[kind](WORDS[words]), scope_of(method=method)).answer()
    scope = scope_of(method=method)
    answer = await Client(MODES[mode](APPS[kind](WORDS[words])), scope).answer()
    assert answer.status_code == bare.status_code
    if method == "HEAD" and mode.startswith("by_policy"):
        # A HEAD is answered by the GET there, without its content.
        assert answer.body == b""
    else:
        assert answer.body == bare.body
    bare_trailers = [each for each in bare.messages if each["type"] == "http.response.trailers"]
    assert [each for each in answer.messages if each["type"] == "http.response.trailers"] == bare_trailers


@pytest.mark.parametrize("mode", MODES)
async def test_what_follows_the_last_bytes_is_not_cut_off(mode: str) -> None:
    """A response whose length is reached before the app is done: the app hears no disconnect before its own end."""
    state: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await length_first(WORDS["stored"])({**scope, "state": state}, receive, send)

    answer = await Client(MODES[mode](app), scope_of()).answer()
    assert answer.body == b"123456"
    assert state == {"heard": None, "then": {"type": "http.disconnect"}}


@pytest.mark.parametrize("mode", MODES)
async def test_a_background_task_runs_to_its_end(mode: str) -> None:
    """What an app does after its response is done as without the cache."""
    state: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await works_on(WORDS["stored"])({**scope, "state": state}, receive, send)

    await Client(MODES[mode](app), scope_of()).answer()
    assert state == {"worked": True}


@pytest.mark.parametrize("words", ["no-store", "cookie"])
@pytest.mark.parametrize("mode", MODES)
async def test_a_stream_without_an_end_ends_with_its_client(mode: str, words: str) -> None:
    """An app hears that its client has gone while it streams what is not kept."""
    made: list[bytes] = []

    async def forever(scope: Any, receive: Any, send: Any) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            while True:
                made.append(b"on and on")
                yield made[-1]
                await asyncio.sleep(0)

        await StreamingResponse(chunks(), headers=WORDS[words])(scope, receive, send)

    client = Client(MODES[mode](forever), scope_of())
    await until(lambda: len(made) > 20)
    client.leave()
    await asyncio.wait_for(client.task, PATIENCE)


CONTENT = {
    "one message": [{"type": "http.request", "body": b"asked", "more_body": False}],
    "in pieces": [
        {"type": "http.request", "body": b"", "more_body": True},
        {"type": "http.request", "body": b"as", "more_body": True},
        {"type": "http.request", "body": b"ked", "more_body": True},
        {"type": "http.request", "body": b"", "more_body": False},
    ],
    "without defaults": [{"type": "http.request", "body": b"asked"}],
}


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the content of the request."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    await send(_start(WORDS["stored"]))
    await send(_chunk(b"<" + body + b">", more=False))


@pytest.mark.parametrize("version", ["1.1", "2", "3"])
@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("content", CONTENT)
@pytest.mark.parametrize("mode", ["by_headers", "by_headers_with_a_cdn", "switched_off", "without_a_policy"])
async def test_the_content_of_a_get_arrives(mode: str, content: str, announced: bool, version: str) -> None:
    """The app is given the content of a GET whole, whether or not a field announces it; nothing of it is stored."""
    app = MODES[mode](echo)
    fields = {"content-length": "5"} if announced else {}
    scope = scope_of(headers=fields, http_version=version)
    first = await Client(app, scope, CONTENT[content]).answer()
    assert first.body == b"<asked>"
    assert (await Client(app, scope_of(http_version=version)).answer()).body == b"<>"


@pytest.mark.parametrize("content", CONTENT)
@pytest.mark.parametrize("version", ["2", "3"])
async def test_content_without_a_field_gets_no_stored_answer(version: str, content: str) -> None:
    """A GET with content is not answered with what was stored for one without."""
    app = MODES["by_headers"](echo)
    assert (await Client(app, scope_of()).answer()).body == b"<>"
    answer = await Client(app, scope_of(http_version=version), CONTENT[content]).answer()
    assert answer.body == b"<asked>"
    assert answer.cache is not None
    assert answer.cache.detail == "content"


class Hears:
    """A layer that takes the whole content of a request before it passes the request on."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.heard: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.heard.append(await Request(scope, receive).body())
        await self.app(scope, receive, send)


@pytest.mark.parametrize("version", ["1.1", "2", "3"])
@pytest.mark.parametrize("content", ["none", *CONTENT])
@pytest.mark.parametrize("by_headers_too", [True, False])
async def test_the_content_of_a_get_arrives_at_a_route_with_a_policy(
    by_headers_too: bool, content: str, version: str
) -> None:
    """What stands before the route hears it whole, although the cache may have looked at it for the headers' sake."""
    inner = FastAPI()

    @inner.get("/", dependencies=[cached(ttl=60, shared=True)])
    async def read() -> str:
        return "read"

    layer = Hears(inner)
    app = CacheMiddleware(layer, cache=HTTPCache(), honour_headers=by_headers_too, front=False)
    answer = await Client(app, scope_of(http_version=version), CONTENT.get(content, _EMPTY)).answer()
    assert (answer.body, layer.heard) == (b'"read"', [b"asked" if content in CONTENT else b""])


async def test_a_request_that_breaks_off_in_its_content_is_heard_to_do_so() -> None:
    """The app hears the beginning of the content and the disconnect, and waits for nothing."""
    heard: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while not heard or heard[-1] != "http.disconnect":
            heard.append((await receive())["type"])

    client = Client(
        MODES["by_headers"](app),
        scope_of(http_version="2"),
        [{"type": "http.request", "body": b"as", "more_body": True}],
    )
    await until(lambda: heard)
    client.leave()
    await asyncio.wait_for(client.task, PATIENCE)
    assert heard == ["http.request", "http.disconnect"]


@pytest.mark.parametrize("mode", ["by_headers", "by_policy"])
async def test_a_client_that_leaves_does_not_cut_what_others_are_given(mode: str) -> None:
    """While a response is kept the app hears no disconnect, also where it was waiting for one before."""
    gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"first "
            await gate.wait()
            yield b"second"

        await StreamingResponse(chunks(), headers=WORDS["stored"])(scope, receive, send)

    wrapped = MODES[mode](app)
    client = Client(wrapped, scope_of())
    await until(lambda: len(client.messages) > 1)
    client.leave()
    await settle()
    gate.set()
    await asyncio.wait_for(client.task, PATIENCE)
    later = await Client(wrapped, scope_of()).answer()
    assert (later.body, later.cache and later.cache.hit) == (b"first second", True)
