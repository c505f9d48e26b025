"""Whoever is handed what a route says: a body that its route has not ended is of use to nobody."""

# No postponed annotations: the handlers name classes of their own test.

from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from fastapi_cacheinval.testing import FakeClock, assert_hit
from tests.helpers.cut import MODES, ROWS, WHOLE, HandsOn, Report, in_app
from tests.helpers.http import Call, ask, scope_of, settle, until

pytestmark = pytest.mark.anyio


async def test_those_who_wait_for_a_stream_that_is_cut_do_not_get_it() -> None:
    """One of them asks the app again, and all get the whole."""
    report = Report()
    app, path = in_app(report, "by headers", [HandsOn])
    asgi = CacheMiddleware(app, honour_headers=True)
    calls = [Call(asgi, scope_of(path)) for _ in range(5)]
    bodies = [(await call.answer()).body for call in calls]
    assert (bodies, report.calls) == ([b"".join(ROWS[:2]), *[WHOLE] * 4], 2)


@pytest.mark.parametrize("mode", MODES)
async def test_a_refresh_that_is_cut_leaves_what_is_stored(mode: str) -> None:
    """It is not renewed, and a later refresh does that."""
    report, clock = Report(headers={"cache-control": "max-age=60, stale-while-revalidate=600"}), FakeClock()
    report.calls = -1
    app = FastAPI(middleware=[Middleware(HandsOn)])
    policy = [cached(ttl=60, stale_while_revalidate=600, jitter=0, shared=True)] if mode == "shared" else []
    app.get("/report", dependencies=policy)(report.answer)
    cache = HTTPCache(clock=clock)
    asgi = CacheMiddleware(app, cache, honour_headers=mode == "by headers")
    assert (await ask(asgi, "/report")).body == WHOLE
    for calls in (1, 2):
        clock.tick(61)
        assert (await ask(asgi, "/report")).body == WHOLE
        await until(lambda calls=calls: report.calls == calls and not cache.statistics().forwards_under_way)  # type: ignore[misc]
        await settle()
    assert_hit(await ask(asgi, "/report"))


async def test_the_cut_answer_to_a_post_is_not_stored_for_get() -> None:
    """By headers, it may be stored where it names its own target as its Content-Location."""
    report, app = Report(headers={"content-location": "/report"}), FastAPI(middleware=[Middleware(HandsOn)])
    app.post("/report")(report.answer)
    app.get("/report")(lambda: "of GET")
    asgi = CacheMiddleware(app, honour_headers=True)
    for stored in (False, True):
        await ask(asgi, "/report", method="POST")
        answer = await ask(asgi, "/report")
        assert answer.body == (WHOLE if stored else b'"of GET"')


async def test_a_cut_part_is_not_kept() -> None:
    """A 206 without a length, of which the end is missing."""
    report = Report(headers={"content-range": f"bytes 0-{len(WHOLE) - 1}/{len(WHOLE)}", "etag": '"1"'})

    async def part(_request: Request) -> Response:
        answer = await report.answer()
        answer.status_code = 206
        return answer

    app = Starlette(routes=[Route("/report", part)], middleware=[Middleware(HandsOn)])
    asgi = CacheMiddleware(app, honour_headers=True)
    bodies = [(await ask(asgi, "/report", headers={"range": "bytes=0-"})).body for _ in range(3)]
    assert bodies == [b"".join(ROWS[:2]), WHOLE, WHOLE]


class Stops:
    """Ends a body after two pieces, and drops the rest."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        pieces = 0

        async def some(message: Any) -> None:
            nonlocal pieces
            pieces += message["type"] == "http.response.body"
            if pieces <= 2:
                await send({**message, "more_body": False} if pieces == 2 else message)

        await self.app(scope, receive, some)


@pytest.mark.parametrize("mode", MODES)
async def test_what_a_layer_ends_before_the_route_does_is_not_kept(mode: str) -> None:
    """Although the route comes to its end while nobody hears it any more."""
    report = Report()
    report.calls = 1
    app, path = in_app(report, mode, [Stops])
    asgi = CacheMiddleware(app, honour_headers=mode == "by headers")
    for calls in (2, 3):
        assert (await ask(asgi, path)).body == b"".join(ROWS[:2])
        assert report.calls == calls


async def test_why_a_cut_stream_is_not_kept_is_counted() -> None:
    """As `incomplete`: its head has gone by then."""
    report = Report()
    app, path = in_app(report, "by headers", [HandsOn])
    asgi = CacheMiddleware(app, honour_headers=True)
    await ask(asgi, path)
    assert dict(asgi.cache.statistics().refused) == {"incomplete": 1}
