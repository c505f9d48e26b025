"""Apps that send messages which are no part of their response, and servers that refuse them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Response

from fastapi_cacheinval import CachePolicy, cached
from tests.helpers.http import Call, scope_of, until

__all__ = ["EMPTY", "END", "ONE", "SHAPES", "SIZED", "START", "STRAYS", "WHOLE", "Passes", "Sends", "Site", "heard"]

_Message = dict[str, Any]

START: _Message = {"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"max-age=60")]}
SIZED: _Message = {**START, "headers": [*START["headers"], (b"content-length", b"4")]}
ONE: _Message = {"type": "http.response.body", "body": b"pa", "more_body": True}
END: _Message = {"type": "http.response.body", "body": b"ge"}
WHOLE: _Message = {"type": "http.response.body", "body": b"page"}
EMPTY: _Message = {"type": "http.response.body", "body": b""}

# The messages of one response, in the ways that they may come.
SHAPES: dict[str, list[_Message]] = {
    "whole": [START, WHOLE],
    "whole, with its length": [SIZED, WHOLE],
    "whole, its end apart": [SIZED, {**WHOLE, "more_body": True}, EMPTY],
    "stream": [START, ONE, END],
    "stream, with its length": [SIZED, ONE, END],
    "stream, its end apart": [START, ONE, {**END, "more_body": True}, EMPTY],
    "stream, with its length and its end apart": [SIZED, ONE, {**END, "more_body": True}, EMPTY],
    "empty": [START, EMPTY],
}

# Messages that no response has after its end.
STRAYS: dict[str, _Message] = {
    "more": {"type": "http.response.body", "body": b"EXTRA"},
    "more, and more to come": {"type": "http.response.body", "body": b"EXTRA", "more_body": True},
    "the end again": EMPTY,
    "another start": {"type": "http.response.start", "status": 404, "headers": [(b"cache-control", b"max-age=9")]},
    "trailers": {"type": "http.response.trailers", "headers": [(b"x-late", b"1")]},
    "a push": {"type": "http.response.push", "path": "/else", "headers": []},
}


def strictly() -> Callable[[Any], Any]:
    """What a server does before it takes a message: as uvicorn, it refuses what does not come in its place."""
    begun = ended = False
    left: int | None = None

    async def check(message: Any) -> None:
        nonlocal begun, ended, left
        kind, body = message["type"], message.get("body", b"")
        if ended or kind != ("http.response.body" if begun else "http.response.start"):
            raise RuntimeError(f"unexpected {kind}")
        if not begun:
            begun = True
            length = dict(message["headers"]).get(b"content-length")
            left = None if length is None else int(length)
            return
        if left is not None:
            left -= len(body)
            if left < 0:
                raise RuntimeError("longer than its Content-Length")
        ended = not message.get("more_body", False)

    return check


class Site:
    """An app that sends messages, and notes which of them were refused; it goes on after that, or raises."""

    def __init__(self, messages: list[Any], *, goes_on: bool) -> None:
        self.messages, self.goes_on = messages, goes_on
        self.refused: list[int] = []
        self.calls = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        self.refused = []
        for index, message in enumerate(self.messages):
            try:
                await send(message)
            except RuntimeError:
                self.refused.append(index)
                if not self.goes_on:
                    raise

    def routed(self, *layers: Any, **policy: Any) -> FastAPI:
        """The same as a route with a policy."""
        app = FastAPI()

        @app.get("/", dependencies=[cached(CachePolicy(ttl=60, shared=True, **policy))])
        async def read() -> Response:
            return Sends(self)

        for layer in layers:
            app.add_middleware(layer)
        return app


class Sends(Response):
    """A response that an app sends."""

    def __init__(self, app: Any) -> None:
        super().__init__()
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)


class Passes:
    """A layer that nobody knows, and that changes nothing."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            await send(message)

        await self.app(scope, receive, sent)


async def heard(app: Any, **more: Any) -> tuple[Call, BaseException | None]:
    """One request to a strict server, and what it raised there."""
    call = Call(app, scope_of("/", **more), before_send=strictly())
    await until(call.task.done)
    return call, call.task.exception()
