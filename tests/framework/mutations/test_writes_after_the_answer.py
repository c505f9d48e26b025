"""What a stream or a background task writes after the answer has begun is purged once the app returns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import BackgroundTasks
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.background import BackgroundTask

from fastapi_cacheinval import cached, invalidates
from tests.helpers.mutations import Shop, begin

pytestmark = pytest.mark.anyio


class _Late:
    """An app whose mutation writes after its answer has begun, once it may."""

    def __init__(self, kind: str) -> None:
        self.shop = shop = Shop()
        self.may_write = asyncio.Event()

        @shop.app.get("/price", dependencies=[cached(ttl=60, tags=["price"])])
        async def read() -> int:
            return shop.read()

        kinds: dict[str, Any] = {
            "stream": self.stream,
            "generator": self.generator,
            "background of a response": self.background,
            "background tasks": self.tasks,
            "background of a stream": self.stream_with_background,
            "plain background": self.plain,
        }
        shop.app.add_api_route("/write", kinds[kind], methods=["PUT"], dependencies=[invalidates("price")])

    async def write(self) -> None:
        await self.may_write.wait()
        self.shop.value = 2

    async def chunks(self) -> AsyncIterator[bytes]:
        yield b"1"
        await self.write()
        yield b"2"

    async def stream(self) -> StreamingResponse:
        return StreamingResponse(self.chunks())

    async def generator(self) -> AsyncIterator[int]:
        yield 1
        await self.write()
        yield 2

    async def background(self) -> JSONResponse:
        return JSONResponse(1, background=BackgroundTask(self.write))

    async def tasks(self, tasks: BackgroundTasks) -> int:
        tasks.add_task(self.write)
        return 1

    async def stream_with_background(self) -> StreamingResponse:
        return StreamingResponse(iter([b"1"]), background=BackgroundTask(self.write))

    def plain(self, tasks: BackgroundTasks) -> int:
        tasks.add_task(self.write)
        return 1


_KINDS = (
    "stream",
    "generator",
    "background of a response",
    "background tasks",
    "background of a stream",
    "plain background",
)


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("fails", [False, True])
async def test_what_is_written_after_the_answer_has_begun_is_purged_when_the_app_returns(
    kind: str, fails: bool
) -> None:
    """A reader between answer and write stores the old value; it is not served once the app has returned."""
    late = _Late(kind)
    await late.shop.get("/price")
    call = begin(late.shop.app, "PUT", "/write")
    while not call.started:  # noqa: ASYNC110  # what is sent is seen by looking
        await asyncio.sleep(0)
    assert (await late.shop.get("/price")).json() == 1
    assert await late.shop.kept("/price")
    late.may_write.set()
    if fails:
        await asyncio.sleep(0)
        call.task.cancel()
    await asyncio.wait([call.task])
    late.shop.value = 2
    assert (await late.shop.get("/price")).json() == 2


async def test_an_ordinary_mutation_is_purged_once() -> None:
    """An answer in one message, after which the app returns, leaves nothing to purge again."""
    shop = Shop()

    @shop.app.get("/price", dependencies=[cached(ttl=60, tags=["price"])])
    async def read() -> int:
        return shop.read()

    @shop.app.put("/async", dependencies=[invalidates("price")])
    async def write() -> int:
        await asyncio.sleep(0)
        return 1

    @shop.app.put("/thread", dependencies=[invalidates("price")])
    def write_in_a_thread() -> dict[str, int]:
        return {"a": 1}

    @shop.app.put("/empty", dependencies=[invalidates("price")], status_code=204)
    async def empty() -> None: ...

    for number, path in enumerate(("/async", "/thread", "/empty"), 1):
        assert (await shop.put(path)).purge == "done"
        assert shop.cache.statistics().purges["published"] == number


async def test_a_refused_mutation_with_a_stream_purges_nothing_again() -> None:
    """A stream of an error changes nothing of the rule."""
    shop = Shop()

    @shop.app.get("/price", dependencies=[cached(ttl=60, tags=["price"])])
    async def read() -> int:
        return shop.read()

    @shop.app.put("/write", dependencies=[invalidates("price")])
    async def write() -> StreamingResponse:
        return StreamingResponse(iter([b"1", b"2"]), status_code=409)

    await shop.get("/price")
    await shop.put("/write")
    assert await shop.kept("/price")
    assert shop.cache.statistics().purges == {}
