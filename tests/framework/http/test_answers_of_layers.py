"""A layer that drops what its route says and answers by itself says a whole response, which is kept."""

# No postponed annotations: the handlers name classes of their own test.

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import StreamingResponse

from fastapi_cacheinval import CacheMiddleware, cached
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.cut import FRESH, MODES, HandsOn
from tests.helpers.http import Call, ask, scope_of, until

pytestmark = pytest.mark.anyio


def drops(app: Any) -> Any:
    """Starlette's kind: the app goes on, and nobody hears it."""

    async def answer(request: Request, call_next: Any) -> Response:
        await call_next(request)
        return Response(b"own", headers=FRESH)

    return BaseHTTPMiddleware(app, answer)


class Swallows:
    """Hears the app to its end, and answers then."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def nowhere(message: Any) -> None:
            pass

        await self.app(scope, receive, nowhere)
        await Response(b"own", headers=FRESH)(scope, receive, send)


class Stands:
    """Answers where the app has raised before it began."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self.app(scope, receive, send)
        except ConnectionError:
            await StreamingResponse(iter([b"o", b"wn"]), headers=FRESH)(scope, receive, send)


async def rows() -> AsyncIterator[bytes]:
    """A stream that takes a while."""
    for _ in range(5):
        await asyncio.sleep(0)
        yield b"row"


def app_of(mode: str, layer: Any, make: Any) -> CacheMiddleware:
    """An app with one page behind a layer."""
    app = FastAPI(middleware=[Middleware(layer)])

    @app.get("/page", dependencies=[cached(ttl=60, shared=True)] if mode == "shared" else [])
    async def page() -> Response:
        answer: Response = make()
        return answer

    return CacheMiddleware(app, honour_headers=mode == "by headers")


async def keeps(asgi: Any, path: str, body: bytes) -> None:
    """A page has this body, and so has the hit after it."""
    assert (await ask(asgi, path)).body == body
    hit = await ask(asgi, path)
    assert_hit(hit)
    assert hit.body == body


@pytest.mark.parametrize("make", [lambda: Response(b"page"), lambda: StreamingResponse(rows())], ids=["one", "many"])
@pytest.mark.parametrize("layer", [drops, Swallows])
@pytest.mark.parametrize("mode", MODES)
async def test_the_answer_of_a_layer_that_drops_the_routes_is_kept(mode: str, layer: Any, make: Any) -> None:
    """Also where the route has begun a stream and ends it later than the layer its own."""
    await keeps(app_of(mode, layer, make), "/page", b"own")


@pytest.mark.parametrize("mode", MODES)
async def test_the_answer_of_a_layer_in_place_of_a_route_that_has_not_begun_is_kept(mode: str) -> None:
    """A stream without a length, where the route has raised."""

    def fails() -> Response:
        raise ConnectionError

    await keeps(app_of(mode, Stands, fails), "/page", b"own")


@pytest.mark.parametrize("mode", MODES)
async def test_what_a_route_has_sent_to_its_declared_length_is_whole(mode: str) -> None:
    """Although its task is cancelled before it has said that this was the end."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"all of it"
        raise asyncio.CancelledError

    asgi = app_of(mode, HandsOn, lambda: StreamingResponse(parts(), headers=FRESH | {"content-length": "9"}))
    await keeps(asgi, "/page", b"all of it")


async def test_a_body_that_a_task_ends_after_its_app_has_returned_is_kept() -> None:
    """Behind a layer that waits for the end."""
    tasks: list[asyncio.Task[None]] = []

    class Page:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"max-age=60")]})
            await send({"type": "http.response.body", "body": b"be", "more_body": True})
            tasks.append(asyncio.create_task(self.rest(send)))

        async def rest(self, send: Any) -> None:
            await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": b"gun"})

    class Waits(Swallows):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(scope, receive, send)
            await asyncio.gather(*tasks)

    app = FastAPI(middleware=[Middleware(Waits)])
    app.mount("/page", Page())
    await keeps(CacheMiddleware(app, honour_headers=True), "/page/", b"begun")


@pytest.mark.parametrize("mode", MODES)
async def test_a_page_behind_a_layer_is_kept_while_its_background_task_runs(mode: str) -> None:
    """The route has ended its body; what it does then is no part of that."""
    goes_on = asyncio.Event()
    asgi = app_of(
        mode, Passes, lambda: StreamingResponse(rows(), headers=FRESH, background=BackgroundTask(goes_on.wait))
    )
    first = Call(asgi, scope_of("/page"))
    await until(lambda: asgi.cache.statistics().responses == 1, "the response")
    assert not first.task.done()
    assert_hit(await ask(asgi, "/page"))
    goes_on.set()
    await first.task


class Passes(Swallows):
    """Hands on as it is."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)
