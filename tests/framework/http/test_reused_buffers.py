"""An app may fill its buffer, its list or its dict anew once `send` has returned: each client gets what was sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Response

from fastapi_cacheinval import CacheMiddleware, CachePolicy, HTTPCache, cached, invalidates
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.http import Answer, Call, scope_of, until
from tests.helpers.messages import Passes, Sends

pytestmark = pytest.mark.anyio

PIECES = (b"AAAA", b"BBBB", b"CCCC", b"DDDD")


class Reuses:
    """An app that has one buffer, one list of fields and one message for all that it sends."""

    def __init__(self, body: Callable[[bytearray], Any], fields: list[tuple[bytes, bytes]], *, by_piece: bool) -> None:
        self.body, self.fields, self.by_piece = body, fields, by_piece

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        pieces = PIECES if self.by_piece else (b"".join(PIECES),)
        name, value = bytearray(b"X-Kept"), bytearray(b"kept")
        line: list[Any] = [name, value]
        fields: list[Any] = [*self.fields, line, (b"x-view", memoryview(value))]
        message: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": fields}
        await send(message)
        name[:], value[:] = b"X-Else", b"else"
        line[1] = b"else"
        fields[:] = [(b"x-else", b"1")]
        message.clear()
        buffer = bytearray(len(pieces[0]))
        view = self.body(buffer)
        for index, piece in enumerate(pieces):
            buffer[:] = piece
            message.update(type="http.response.body", body=view, more_body=index < len(pieces) - 1)
            await send(message)
            message.clear()
        buffer[:] = b"-" * len(buffer)
        # What goes on after its answer.
        await asyncio.sleep(0)


BODIES: dict[str, Callable[[bytearray], Any]] = {
    "a view": memoryview,
    "the buffer": lambda buffer: buffer,
    "a view of numbers": lambda buffer: memoryview(buffer).cast("H"),
}
FRESH = [(b"cache-control", b"max-age=60")]
SIZED = [*FRESH, (b"content-length", b"16")]


def _by_headers(site: Any) -> Any:
    return CacheMiddleware(site, cache=HTTPCache(), honour_headers=True)


def _by_policy(site: Any, *layers: Any) -> Any:
    app = FastAPI()

    @app.get("/", dependencies=[cached(CachePolicy(ttl=60, shared=True))])
    async def read() -> Response:
        return Sends(site)

    for layer in layers:
        app.add_middleware(layer)
    return CacheMiddleware(app, cache=HTTPCache())


MODES: dict[str, Callable[[Any], Any]] = {
    "by headers": _by_headers,
    "by policy": _by_policy,
    "behind a layer": lambda site: _by_policy(site, Passes),
}


class Slow(Call):
    """A request of a client that takes nothing at once; what it has taken is its own."""

    async def _send(self, message: Any) -> None:
        for _ in range(20):
            await asyncio.sleep(0)
        taken = {**message}
        if "body" in taken:
            taken["body"] = bytes(taken["body"])
        if "headers" in taken:
            taken["headers"] = [(bytes(name), bytes(value)) for name, value in taken["headers"]]
        await super()._send(taken)


def assert_is_what_was_sent(answer: Answer) -> None:
    """The body and the fields are those of the moment at which they were sent."""
    assert answer.body == b"".join(PIECES)
    assert (answer.headers["x-kept"], answer.headers["x-view"], "x-else" in answer.headers) == ("kept", "kept", False)


def slowly(app: Any, **more: Any) -> Call:
    """A request of a client that reads slowly."""
    return Slow(app, scope_of("/", **more))


@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("body", list(BODIES))
@pytest.mark.parametrize("fields", [FRESH, SIZED], ids=["no length", "its length"])
@pytest.mark.parametrize("by_piece", [True, False], ids=["by piece", "at once"])
async def test_a_page_is_what_was_sent(
    mode: str, body: str, fields: list[tuple[bytes, bytes]], *, by_piece: bool
) -> None:
    """The client whose request fills it reads slowly; it, those who wait beside it and those who come later agree."""
    app = MODES[mode](Reuses(BODIES[body], fields, by_piece=by_piece))
    answers = [await call.answer() for call in [slowly(app), slowly(app)]]
    hit = await Call(app, scope_of("/")).answer()
    for answer in [*answers, hit]:
        assert_is_what_was_sent(answer)
    assert_hit(hit)


@pytest.mark.parametrize("body", list(BODIES))
@pytest.mark.parametrize("by_piece", [True, False], ids=["by piece", "at once"])
async def test_a_held_answer_is_what_was_sent(body: str, *, by_piece: bool) -> None:
    """A PUT whose commit is still to come: its answer is released long after the app has sent it."""
    commit = asyncio.Event()

    async def session() -> AsyncIterator[None]:
        yield
        await commit.wait()

    app = FastAPI()

    @app.put("/", dependencies=[invalidates("it"), Depends(session)])
    async def write() -> Response:
        return Sends(Reuses(BODIES[body], SIZED, by_piece=by_piece))

    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    call = slowly(app, method="PUT")
    await asyncio.sleep(0)
    commit.set()
    answer = await call.answer()
    assert_is_what_was_sent(answer)
    assert answer.headers["cacheinval-purge"] == "done"


async def test_the_answer_to_a_post_is_stored_as_it_was_sent() -> None:
    """By headers it may be stored for GET; its fields are those of its start."""
    located = [*FRESH, (b"content-location", b"/")]
    app = CacheMiddleware(Reuses(memoryview, located, by_piece=True), cache=HTTPCache(), honour_headers=True)
    assert_is_what_was_sent(await slowly(app, method="POST").answer())
    hit = await Call(app, scope_of("/")).answer()
    assert_hit(hit)
    assert_is_what_was_sent(hit)


@pytest.mark.parametrize("wrong", ["text", None, 5], ids=["text", "nothing", "a number"])
async def test_what_is_no_bytes_is_an_error_of_the_app(wrong: Any) -> None:
    """It is no page of five zeros."""

    async def site(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": FRESH})
        await send({"type": "http.response.body", "body": wrong})

    call = Call(_by_headers(site), scope_of("/"))
    await until(call.task.done)
    assert isinstance(call.task.exception(), TypeError)


@pytest.mark.parametrize("control", ["max-age=60", "no-store", "private"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("kind", [bytearray, memoryview])
async def test_fields_may_come_in_what_servers_take_for_bytes(kind: Any, method: str, control: str) -> None:
    """Any field, of any answer: what a server sends without a cache is no error with one."""
    lines = {b"cache-control": control.encode(), b"vary": b"accept", b"etag": b'"1"', b"content-length": b"16"}

    async def site(scope: Any, receive: Any, send: Any) -> None:
        headers = [(kind(name) if kind is bytearray else name, kind(value)) for name, value in lines.items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else b"".join(PIECES)})

    app = CacheMiddleware(site, cache=HTTPCache(), honour_headers=True)
    for _ in range(2):
        answer = await slowly(app, method=method).answer()
        assert {name: answer.fields(name.decode()) for name in lines} == {name: [lines[name]] for name in lines}
