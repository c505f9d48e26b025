"""A stream that breaks half-way is kept by nobody, also where a layer ends it as if it were whole."""

# No postponed annotations: the handlers name classes of their own test.

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.cut import HandsOn
from tests.helpers.http import Call, ask, scope_of, until

pytestmark = pytest.mark.anyio

WHOLE = b"row 1\nrow 2\n"


class Ending:
    """Swallows an error, and ends the response."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self.app(scope, receive, send)
        except ConnectionError:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


LAYERS = {"hands on": [HandsOn], "two of them": [HandsOn, HandsOn], "ends it": [Ending]}
# Where nothing stands between the route and the cache, the stream has no end at all.
MODES: dict[str, dict[str, Any]] = {
    "by headers": {"honour_headers": True},
    "by policy": {"ttl": 60},
    "shared": {"ttl": 60, "shared": True},
}


class Shop:
    """A report whose first stream breaks after `whole` of its rows."""

    def __init__(self, mode: str, layers: Any, *, rows: int, sync: bool) -> None:
        self.app, self.calls = FastAPI(), 0
        options = dict(MODES[mode])
        headers = options.pop("honour_headers", False)

        @self.app.get("/report", dependencies=[] if headers else [cached(**options)])
        async def report() -> StreamingResponse:
            self.calls += 1
            broken = self.calls == 1
            body: Any = self.rows(rows if broken else 2, broken=broken)
            return StreamingResponse(body if sync else self.each(body), headers={"cache-control": "max-age=60"})

        self.cache = HTTPCache()
        app: Any = self.app
        for layer in layers:
            app = layer(app)
        self.asgi = CacheMiddleware(app, self.cache, honour_headers=headers)

    @staticmethod
    def rows(count: int, *, broken: bool) -> Iterator[bytes]:
        for number in range(count):
            yield b"row %d\n" % (number + 1)
        if broken:
            raise ConnectionError("the database went away")

    @staticmethod
    async def each(body: Iterator[bytes]) -> AsyncIterator[bytes]:
        for part in body:
            yield part


async def answer_of(call: Call) -> bytes:
    """What a client gets, whatever the app raises then."""
    await asyncio.gather(call.task, return_exceptions=True)
    return b"".join(message.get("body", b"") for message in call.messages)


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize("rows", [0, 1, 2])
@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("mode", MODES)
async def test_what_a_layer_ends_after_an_error_is_not_kept(mode: str, layers: Any, rows: int, sync: bool) -> None:
    """The next request is answered by the app, and gets the whole; only that is kept."""
    shop = Shop(mode, layers, rows=rows, sync=sync)
    await answer_of(Call(shop.asgi, scope_of("/report")))
    assert shop.calls == 1
    for _ in range(3):
        answer = await ask(shop.asgi, "/report")
        assert (answer.body, shop.calls) == (WHOLE, 2)


async def test_those_who_wait_for_a_stream_that_breaks_do_not_get_it() -> None:
    """One of them asks the app again, and all get the whole."""
    shop = Shop("by headers", [HandsOn], rows=1, sync=False)
    calls = [Call(shop.asgi, scope_of("/report")) for _ in range(5)]
    bodies = [await answer_of(call) for call in calls]
    assert bodies == [b"row 1\n", *[WHOLE] * 4]


def with_background(work: Any) -> tuple[FastAPI, CacheMiddleware]:
    """A stream with a task behind it."""
    app = FastAPI()

    @app.get("/report")
    async def report() -> StreamingResponse:
        return StreamingResponse(
            iter([b"row 1\n", b"row 2\n"]), headers={"cache-control": "max-age=60"}, background=BackgroundTask(work)
        )

    return app, CacheMiddleware(app, honour_headers=True)


async def test_a_stream_is_kept_while_its_background_task_runs() -> None:
    """It does not wait for a task that takes long."""
    goes_on = asyncio.Event()
    _, asgi = with_background(goes_on.wait)
    first = Call(asgi, scope_of("/report"))
    await until(lambda: asgi.cache.statistics().responses == 1, "the response")
    assert not first.task.done()
    assert_hit(await ask(asgi, "/report"))
    goes_on.set()
    await first.task


async def test_a_stream_that_was_kept_is_let_go_of_where_the_app_fails_later() -> None:
    """Whether it was whole is not known then."""
    fails = asyncio.Event()

    async def work() -> None:
        await fails.wait()
        raise ConnectionError

    _, asgi = with_background(work)
    first = Call(asgi, scope_of("/report"))
    await until(lambda: asgi.cache.statistics().responses == 1, "the response")
    fails.set()
    assert await answer_of(first) == WHOLE
    assert asgi.cache.statistics().responses == 0
