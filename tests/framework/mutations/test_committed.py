"""What code says that it has committed is purged with its request, or is its own affair."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from fastapi_cacheinval import CacheMiddleware, CacheNotRunning, HTTPCache, cached, invalidates, purge_with_request
from fastapi_cacheinval.testing import assert_hit, assert_miss, capture_invalidations
from tests.helpers.mutations import Shop, ask, begin, get, settle

pytestmark = pytest.mark.anyio


class Desk(Shop):
    """A shop with a cached price, and PUTs that say themselves what they have committed."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.said: list[bool] = []
        self.may_commit = asyncio.Event()

        @self.app.get("/price", dependencies=[cached(ttl=60, tags=["price"])])
        async def read() -> int:
            return self.read()

    def commit(self, *tags: str) -> None:
        """Change the value, and say so."""
        self.value += 1
        self.said.append(purge_with_request(*(tags or ("price",))))

    async def session(self) -> AsyncIterator[None]:
        """Commits after the response, when the test says so."""
        yield
        await self.may_commit.wait()
        self.commit()


async def test_a_handler_joins_the_purge_of_its_request() -> None:
    """One line for what is declared and what is said, made before the answer goes."""
    desk = Desk()

    @desk.app.put("/write", dependencies=[invalidates("declared")])
    async def write() -> None:
        desk.commit("price", "odd tag")

    await desk.get("/price")
    with capture_invalidations(desk.cache) as receipts:
        answer = await desk.put("/write")
    assert (desk.said, answer.purge) == ([True], "done")
    assert [receipt.tags for receipt in receipts] == [("declared", "price", "odd%20tag")]
    assert (await desk.get("/price")).json() == 2


@pytest.mark.parametrize("how", ["plain function", "pool", "thread of its own"])
async def test_threads_of_a_request_join_it(how: str) -> None:
    """They have a copy of its context; a thread made by hand has none, and is told to purge by itself."""
    desk = Desk()

    def in_own_thread() -> None:
        thread = threading.Thread(target=desk.commit)
        thread.start()
        thread.join()

    if how == "plain function":

        @desk.app.put("/write")
        def write() -> None:
            desk.commit()

    else:

        @desk.app.put("/write")
        async def write_elsewhere() -> None:
            await run_in_threadpool(desk.commit if how == "pool" else in_own_thread)

    answer = await desk.put("/write")
    assert desk.said == [how != "thread of its own"]
    assert answer.purge == ("done" if desk.said[0] else None)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_a_safe_request_has_no_purge_to_join(method: str) -> None:
    """Whoever writes in one purges by himself; so does code outside of any request."""
    desk = Desk()

    @desk.app.api_route("/touch", methods=[method])
    async def touch() -> None:
        desk.commit()

    await ask(desk.app, method, "/touch")
    desk.commit()
    assert desk.said == [False, False]


async def test_after_the_answer_there_is_nothing_left_to_join() -> None:
    """Background tasks, streams, and tasks that outlive the request are told to purge by themselves."""
    desk = Desk()
    over = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def outliving() -> None:
        await over.wait()
        desk.commit()

    async def body() -> AsyncIterator[bytes]:
        desk.commit()
        yield b"x"

    @desk.app.put("/task")
    async def task() -> None:
        tasks.append(asyncio.create_task(outliving()))

    @desk.app.put("/background")
    async def background(later: BackgroundTasks) -> None:
        later.add_task(desk.commit)

    @desk.app.put("/stream", response_model=None)
    async def stream() -> StreamingResponse:
        return StreamingResponse(body())

    with capture_invalidations(desk.cache) as receipts:
        for path in ("/task", "/background", "/stream"):
            await desk.put(path)
        over.set()
        await tasks[0]
    assert (desk.said, receipts) == ([False, False, False], [])


@pytest.mark.parametrize("way", ["returned", "raised", "unhandled"])
async def test_an_error_after_the_commit_purges_what_was_committed(way: str) -> None:
    """An error that the app chose purges only that; one that nobody handled purges what is declared as well."""
    desk = Desk()

    @desk.app.put("/write", dependencies=[invalidates("declared")], response_model=None)
    async def write() -> Response:
        desk.commit()
        if way == "raised":
            raise HTTPException(404)
        if way == "unhandled":
            raise LookupError
        return JSONResponse({}, 404)

    await desk.get("/price")
    with capture_invalidations(desk.cache) as receipts:
        call = begin(desk.app, "PUT", "/write")
        if way == "unhandled":
            with pytest.raises(LookupError):
                await call.task
        else:
            assert (await call.answer()).purge == "done"
    assert [set(receipt.tags) for receipt in receipts] == [{"price"} | ({"declared"} if way == "unhandled" else set())]
    assert (await desk.get("/price")).json() == 2


async def test_an_error_without_a_commit_says_nothing_of_a_purge() -> None:
    """As before there was anything to say."""
    desk = Desk()
    desk.cache.expect_changes()

    @desk.app.put("/write", dependencies=[invalidates("price")])
    async def write() -> None:
        raise HTTPException(403)

    with capture_invalidations(desk.cache) as receipts:
        answer = await desk.put("/write")
    assert (answer.status_code, answer.purge, receipts) == (403, None, [])


async def test_a_request_of_another_cache_is_not_joined_where_one_is_named() -> None:
    """Whoever works for one cache, in an app of another, purges by himself."""
    desk, other = Desk(), HTTPCache()

    @desk.app.put("/write")
    async def write() -> list[bool]:
        return [purge_with_request("price", cache=each) for each in (other, desk.cache)]

    assert (await desk.put("/write")).json() == [False, True]


# -- commits that come after the response ------------------------------------------------------


@pytest.mark.parametrize("status", [200, 404])
async def test_answers_wait_for_a_late_commit_where_changes_are_expected(status: int) -> None:
    """Nothing is declared, so only the commit tells what to purge: the answer waits for it, an error too."""
    desk = Desk()
    desk.cache.expect_changes()

    @desk.app.put("/write", dependencies=[Depends(desk.session)], response_model=None)
    async def write() -> JSONResponse:
        return JSONResponse({}, status)

    await desk.get("/price")
    call = begin(desk.app, "PUT", "/write")
    await settle()
    assert not call.started
    assert_hit(await desk.get("/price"))
    desk.may_commit.set()
    answer = await call.answer()
    assert (answer.status_code, answer.purge, desk.said) == (status, "done", [True])
    assert_miss(await desk.get("/price"))


async def test_answers_do_not_wait_where_nothing_is_expected_or_nothing_commits_late() -> None:
    """G8: without the word nothing is held, and with it only where a dependency ends after the answer."""
    desk = Desk()

    @desk.app.put("/late", dependencies=[Depends(desk.session)])
    async def late() -> None:
        return

    free = asyncio.Event()

    @desk.app.put("/early")
    async def early(later: BackgroundTasks) -> None:
        later.add_task(free.wait)

    call = begin(desk.app, "PUT", "/late")
    await settle()
    assert call.started
    desk.may_commit.set()
    await call.answer()
    desk.cache.expect_changes()
    call = begin(desk.app, "PUT", "/early")
    await settle()
    assert call.started
    free.set()
    assert (await call.answer()).purge is None


async def test_a_commit_past_the_hold_is_told_to_purge_by_itself() -> None:
    """The answer has gone: there is nothing to join, and the committer does not wait for the end of the request."""
    desk = Desk()
    desk.cache.expect_changes()

    @desk.app.put("/write", dependencies=[Depends(desk.session)])
    async def write() -> None:
        return

    call = begin(desk.app, "PUT", "/write")
    await settle()
    desk.clock.tick(0.2)
    await settle()
    assert call.started
    desk.may_commit.set()
    assert (await call.answer()).purge is None
    assert desk.said == [False]


async def test_a_stream_is_not_held_for_a_late_commit() -> None:
    """G8: its first byte goes at once; what is committed after it is its committer's to purge."""
    desk = Desk()
    desk.cache.expect_changes()
    free = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        await free.wait()

    @desk.app.put("/write", dependencies=[Depends(desk.session)], response_model=None)
    async def write() -> StreamingResponse:
        return StreamingResponse(body())

    call = begin(desk.app, "PUT", "/write")
    await settle()
    assert call.started
    free.set()
    desk.may_commit.set()
    await call.answer()
    assert desk.said == [False]


async def test_an_app_that_is_steered_by_headers_has_the_same_purge_to_join() -> None:
    """`honour_headers`: a mutation there takes what is committed, and a GET does not."""
    cache = HTTPCache()
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache, honour_headers=True)
    said: list[bool] = []
    reads = 0

    @app.get("/price")
    async def read(response: Response) -> int:
        nonlocal reads
        reads += 1
        response.headers["Cache-Control"] = "max-age=60"
        response.headers["Surrogate-Key"] = "price"
        said.append(purge_with_request("nothing"))
        return reads

    @app.put("/write")
    async def write() -> None:
        said.append(purge_with_request("price"))

    assert [(await get(app, "/price")).json() for _ in "ab"] == [1, 1]
    with capture_invalidations(cache) as receipts:
        assert (await ask(app, "PUT", "/write")).purge == "done"
    assert len(receipts) == 1
    assert "price" in receipts[0].tags
    assert (await get(app, "/price")).json() == 2
    assert said == [False, True, False]


# -- from plain code on the loop's own thread --------------------------------------------------


async def test_a_purge_soon_is_obeyed_at_once_and_numbered_soon() -> None:
    """`invalidate_soon` cannot wait; what was filled before it is not served from then on, here."""
    desk = Desk()
    async with desk.cache:
        assert [(await desk.get("/price")).json() for _ in "ab"] == [1, 1]
        desk.value = 2
        with capture_invalidations(desk.cache) as receipts:
            desk.cache.invalidate_soon("price")
            assert receipts == []
            assert (await desk.get("/price")).json() == 2
            await settle()
        assert [receipt.tags for receipt in receipts] == [("price",)]
        assert_hit(await desk.get("/price"))


async def test_a_purge_soon_may_be_soft_and_needs_a_cache_that_runs() -> None:
    """A soft one lets what is stale be served; without a start there is nobody to do it later."""
    cache = HTTPCache()
    with pytest.raises(CacheNotRunning):
        cache.invalidate_soon("price")
    async with cache:
        with capture_invalidations(cache) as receipts:
            cache.invalidate_soon("price", "", soft=True)
            await settle()
    assert [(receipt.tags, receipt.soft) for receipt in receipts] == [(("price",), True)]
    assert cache._core.counters.dropped_tags == 1
