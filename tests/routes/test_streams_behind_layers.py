"""Streams with validators of their own, behind layers: what leaves them alone, and what does not."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Response
from fastapi.responses import FileResponse, StreamingResponse
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from tests.helpers.http import Answer, Call, ask, scope_of, until

pytestmark = pytest.mark.anyio

OWN = {"etag": '"own"', "last-modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
PIECES = (b"hel", b"lo ", b"you")


class Layer:
    """Passes all on for who says nothing of themselves; a class of its own says what it makes of it for others."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        who = dict(scope.get("headers", ())).get(b"x-caller")
        sent = 0

        async def written(message: Any) -> None:
            nonlocal sent
            sent += message["type"] == "http.response.body"
            for each in [message] if who is None else self.makes(message, sent):
                await send(each)

        await self.app(scope, receive, written)

    def makes(self, message: Any, sent: int) -> list[Any]:
        return [message]


class AddsAField(Layer):
    def makes(self, message: Any, sent: int) -> list[Any]:
        return [message] if sent else [{**message, "headers": [*message["headers"], (b"x-user", b"alice")]}]


class Cuts(Layer):
    """Sends each piece in two, and an empty one before."""

    def makes(self, message: Any, sent: int) -> list[Any]:
        if not sent:
            return [message]
        pieces = [b"", message["body"][:2], message["body"][2:]]
        more = [{**message, "body": each, "more_body": True} for each in pieces]
        return more if message.get("more_body") else [*more, {**message, "body": b""}]


class PassesByDispatch(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        return response


class AppendsToEach(Layer):
    def makes(self, message: Any, sent: int) -> list[Any]:
        return [{**message, "body": message["body"] + b" for alice"} if sent else message]


class PutsBefore(Layer):
    def makes(self, message: Any, sent: int) -> list[Any]:
        piece = {"type": "http.response.body", "body": b"alice: ", "more_body": True}
        return [piece, message] if sent == 1 else [message]


class Empties(Layer):
    def makes(self, message: Any, sent: int) -> list[Any]:
        return [{**message, "body": b""} if sent else message]


class Overwrites(Layer):
    def makes(self, message: Any, sent: int) -> list[Any]:
        return [{**message, "body": b"a" * len(message["body"])} if sent else message]


class SaysAnotherType(Layer):
    def makes(self, message: Any, sent: int) -> list[Any]:
        return [message] if sent else [{**message, "headers": [*message["headers"], (b"content-type", b"text/html")]}]


class Collects(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        if "x-caller" not in request.headers:
            return response
        body = b"".join([piece async for piece in response.body_iterator])

        async def again() -> AsyncIterator[bytes]:
            yield body + b" for alice"

        return StreamingResponse(again(), response.status_code, dict(response.headers))


class AppendsAtTheEnd(Layer):
    """Changes what nobody can know when the head has to leave."""

    def makes(self, message: Any, sent: int) -> list[Any]:
        last = sent and not message.get("more_body")
        return [{**message, "body": message["body"] + b" for alice"} if last else message]


async def _pieces() -> AsyncIterator[bytes]:
    for piece in PIECES:
        yield piece
        await asyncio.sleep(0)


async def _large() -> AsyncIterator[bytes]:
    for _ in range(8):
        yield b"x" * 200_000


def app_of(layer: Any, *, cache: HTTPCache | None = None, file: Path | None = None) -> Any:
    app = FastAPI()

    @app.get("/stream", dependencies=[cached(ttl=60)])
    async def stream() -> Response:
        return StreamingResponse(_pieces(), headers=OWN)

    @app.get("/large", dependencies=[cached(ttl=60)])
    async def large() -> Response:
        return StreamingResponse(_large(), headers=OWN)

    @app.get("/file", dependencies=[cached(ttl=60)])
    async def read() -> Response:
        assert file is not None
        return FileResponse(file)

    app.add_middleware(layer)
    return app if cache is None else CacheMiddleware(app, cache=cache)


def said_of(answer: Answer) -> tuple[Any, ...]:
    names = ("etag", "last-modified", "content-type", "x-user")
    return (answer.status_code, answer.body, *(answer.headers.get(name) for name in names))


@pytest.mark.parametrize("layer", [Layer, AddsAField, Cuts, PassesByDispatch])
@pytest.mark.parametrize("path", ["/stream", "/large", "/file"])
async def test_a_stream_that_a_layer_leaves_alone_keeps_its_own_validators(
    layer: Any, path: str, tmp_path: Path
) -> None:
    """Cold, warm, and where it is too large to be kept: what the app alone says of its body."""
    file = tmp_path / "page.bin"
    file.write_bytes(b"x" * 200_000)
    alone, app = app_of(layer, file=file), app_of(layer, cache=HTTPCache(), file=file)
    for _ in range(3):
        ours = await ask(app, path, headers={"x-caller": "alice"})
        theirs = await ask(alone, path, headers={"x-caller": "alice"})
        assert theirs.headers["etag"]
        assert said_of(ours) == said_of(theirs)


@pytest.mark.parametrize("layer", [AppendsToEach, PutsBefore, Empties, Overwrites, SaysAnotherType, Collects])
async def test_a_stream_that_a_layer_has_changed_keeps_no_validator_of_the_routes(layer: Any) -> None:
    """Who has it, and asks as another, is sent that other's."""
    alone, app = app_of(layer), app_of(layer, cache=HTTPCache())
    told = await ask(app, "/stream", headers={"x-caller": "alice"})
    assert told.body == (await ask(alone, "/stream", headers={"x-caller": "alice"})).body
    assert "etag" not in told.headers
    assert "last-modified" not in told.headers
    stranger = await ask(app, "/stream")
    assert (stranger.status_code, stranger.body, stranger.headers["etag"]) == (200, b"".join(PIECES), '"own"')


async def test_a_stream_that_turns_out_changed_at_its_end_ends_the_use_of_its_validators(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The head had gone. The log says so once, nobody is told 304 for such a page, and later ones have no validator."""
    app = app_of(AppendsAtTheEnd, cache=HTTPCache())
    with caplog.at_level(logging.WARNING, "fastapi_cacheinval.middleware"):
        slipped = [await ask(app, path, headers={"x-caller": "alice"}) for path in ("/stream", "/large", "/large")]
    assert [answer.headers.get("etag") for answer in slipped] == ['"own"', '"own"', None]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert all("AppendsAtTheEnd changes streams" in line for line in said)
    for condition in ({"if-none-match": '"own"'}, {"if-modified-since": OWN["last-modified"]}):
        stranger = await ask(app, "/stream", headers=condition)
        assert (stranger.status_code, stranger.body) == (200, b"".join(PIECES))
    own = await ask(app, "/stream", headers={"x-caller": "alice"})
    again = await ask(app, "/stream", headers={"x-caller": "alice", "if-none-match": own.headers["etag"]})
    assert (own.body, again.status_code) == (b"".join(PIECES) + b" for alice", 304)


@pytest.mark.parametrize("layer", [Layer, Cuts, PassesByDispatch])
async def test_a_stream_with_validators_is_not_held_behind_layers(layer: Callable[..., Any]) -> None:
    """The head leaves with the first piece, the others as they come."""
    gate = asyncio.Event()
    app = FastAPI()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        await gate.wait()
        yield b"two"

    @app.get("/it", dependencies=[cached(ttl=60)])
    async def read() -> Response:
        return StreamingResponse(pieces(), headers=OWN)

    app.add_middleware(layer)  # type: ignore[arg-type]
    call = Call(CacheMiddleware(app, cache=HTTPCache()), scope_of("/it", headers={"x-caller": "alice"}))
    await until(lambda: call.body == b"one")
    gate.set()
    answer = await call.answer()
    assert (answer.body, answer.headers["etag"]) == (b"onetwo", '"own"')
