"""The purge comes after the commit and the response after the purge, within the bounds of the hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Response
from fastapi.responses import EventSourceResponse, FileResponse, JSONResponse, StreamingResponse
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware

from fastapi_cacheinval import CacheMiddleware, cached, invalidates
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.mutations import Shop, begin, settle

pytestmark = pytest.mark.anyio


class Till(Shop):
    """A shop whose PUTs go through a `yield` dependency that commits on exit, when the test says so."""

    def __init__(
        self, *, scope: Literal["function"] | None = None, commit: Exception | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.may_commit = asyncio.Event()
        self.pending: int | None = None

        async def session() -> AsyncIterator[Till]:
            yield self
            await self.may_commit.wait()
            if commit is not None:
                raise commit
            if self.pending is not None:
                self.value = self.pending

        self.session: Any = Depends(session, scope=scope)

        @self.app.get("/price", dependencies=[cached(ttl=60, tags=["price"])])
        async def read() -> int:
            return self.read()

    def writes(self, respond: Any, **route: Any) -> None:
        """Declare `PUT /write`, which writes through the session and answers with what `respond` gives."""

        async def write(till: Any = self.session) -> Any:
            till.pending = self.value + 1
            return respond()

        self.app.put("/write", dependencies=[invalidates("price")], response_model=None, **route)(write)


async def test_the_response_is_held_until_the_commit_and_the_purge_comes_between() -> None:
    """The client hears nothing before the commit; once it hears, the next request is answered with the new value."""
    till = Till()
    till.writes(lambda: {"ok": True})
    assert (await till.get("/price")).json() == 1
    call = begin(till.app, "PUT", "/write")
    await settle()
    assert not call.started
    assert_hit(await till.get("/price"))
    till.may_commit.set()
    answer = await call.answer()
    assert (answer.status_code, answer.json(), answer.purge) == (200, {"ok": True}, "done")
    after = await till.get("/price")
    assert_miss(after)
    assert after.json() == 2


async def test_a_fill_that_read_before_the_commit_is_not_served_after_the_response() -> None:
    """A reader that runs while the response is held reads what is not yet changed; what it read is not kept."""
    till = Till()
    till.writes(lambda: {"ok": True})
    call = begin(till.app, "PUT", "/write")
    await settle()
    assert (await till.get("/price")).json() == 1
    assert_hit(await till.get("/price"))
    till.may_commit.set()
    await call.answer()
    assert (await till.get("/price")).json() == 2


async def test_with_a_function_scoped_dependency_nothing_is_held() -> None:
    """`scope="function"` commits before the response starts, so the purge is done before the start, and no late one follows."""
    till = Till(scope="function")
    order: list[str] = []

    async def slow_background() -> None:
        order.append(f"background after {[message['type'] for message in call.messages]}")

    async def write(background: BackgroundTasks, session: Any = till.session) -> dict[str, bool]:
        session.pending = 2
        background.add_task(slow_background)
        return {"ok": True}

    till.app.put("/write", dependencies=[invalidates("price")])(write)
    await till.get("/price")
    call = begin(till.app, "PUT", "/write")
    await settle()
    assert not call.started
    till.may_commit.set()
    answer = await call.answer()
    assert answer.purge == "done"
    assert order == ["background after ['http.response.start', 'http.response.body']"]
    assert (await till.get("/price")).json() == 2
    assert till.cache.statistics().purges == {"published": 1}


async def test_a_route_without_anything_that_commits_late_is_not_held() -> None:
    """A plain handler has written when it returns: purged before the start, whatever runs after the response."""
    shop = Shop()
    free = asyncio.Event()

    @shop.app.get("/price", dependencies=[cached(ttl=60, tags=["price"])])
    async def read() -> int:
        return shop.read()

    @shop.app.put("/write", dependencies=[invalidates("price")])
    async def write(background: BackgroundTasks) -> None:
        shop.value = 2
        background.add_task(free.wait)

    await shop.get("/price")
    call = begin(shop.app, "PUT", "/write")
    await settle()
    assert call.started
    assert (await shop.get("/price")).json() == 2
    free.set()
    assert (await call.answer()).purge == "done"


async def test_a_middleware_inside_ours_that_may_commit_holds_the_response() -> None:
    """What commits after `call_next` does so before the client hears, although the route itself commits nothing."""
    shop = Shop()
    gate = asyncio.Event()
    # Added later means further out: ours is added again outside of the one that commits.
    app = FastAPI()

    class Commits(BaseHTTPMiddleware):
        async def dispatch(self, request: Any, call_next: Any) -> Any:
            response = await call_next(request)
            body = b"".join([chunk async for chunk in response.body_iterator])
            if request.method == "PUT":
                await gate.wait()
                shop.value = 2
            return Response(body, response.status_code, dict(response.headers))

    class CommitsAfterSending:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(scope, receive, send)
            if scope["type"] == "http" and scope["method"] == "PUT":
                await gate.wait()
                shop.value = 2

    @app.get("/price", dependencies=[cached(ttl=60, tags=["price"])])
    async def read() -> int:
        return shop.read()

    @app.put("/write", dependencies=[invalidates("price")])
    async def write() -> None: ...

    app.add_middleware(CommitsAfterSending)
    app.add_middleware(CacheMiddleware, cache=shop.cache)
    shop.app = app
    await shop.get("/price")
    call = begin(app, "PUT", "/write")
    await settle()
    assert not call.started
    gate.set()
    assert (await call.answer()).purge == "done"
    assert (await shop.get("/price")).json() == 2


async def test_a_middleware_of_a_mounted_app_that_may_commit_holds_the_response() -> None:
    """A mount's own layers are inside ours too."""
    shop = Shop()
    gate = asyncio.Event()
    inner = FastAPI()

    class CommitsAfterSending:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(scope, receive, send)
            if scope["type"] == "http" and scope["method"] == "PUT":
                await gate.wait()
                shop.value = 2

    @inner.get("/price", dependencies=[cached(ttl=60, tags=["price"])])
    async def read() -> int:
        return shop.read()

    @inner.put("/write", dependencies=[invalidates("price")])
    async def write() -> None: ...

    inner.add_middleware(CommitsAfterSending)
    shop.app.mount("/inner", inner)
    await shop.get("/inner/price")
    call = begin(shop.app, "PUT", "/inner/write")
    await settle()
    assert not call.started
    gate.set()
    await call.answer()
    assert (await shop.get("/inner/price")).json() == 2


async def test_a_held_response_goes_after_the_hold_timeout_and_says_that_its_purge_is_queued() -> None:
    """100 ms by the cache's clock: purged, released, fenced until the app returns, and purged again after the commit."""
    till = Till()
    till.writes(lambda: {"ok": True})
    await till.get("/price")
    call = begin(till.app, "PUT", "/write")
    await settle()
    till.clock.tick(0.099)
    await settle()
    assert not call.started
    till.clock.tick(0.002)
    await settle()
    assert [message["type"] for message in call.messages] == ["http.response.start", "http.response.body"]
    assert not call.task.done()
    # What was kept is gone at once; what is read before the commit is old, and lives until then.
    assert_miss(await till.get("/price"))
    assert (await till.get("/price")).json() == 1
    assert till.cache._core.engine.replica.fenced(("price",))
    till.may_commit.set()
    answer = await call.answer()
    assert answer.purge == "queued"
    assert answer.headers["cache-status"] == "cacheinval; fwd=method; detail=late-purge"
    assert (await till.get("/price")).json() == 2
    assert not till.cache._core.engine.replica.fenced(("price",))
    assert till.cache.statistics().purges == {"published": 2}


async def test_behind_a_late_purge_nobody_waits_for_another_fill() -> None:
    """While the commit is still to come, each request reads for itself: what another began to read may be older."""
    till = Till()
    till.writes(lambda: StreamingResponse(iter([b"x"])))
    entered, leave = asyncio.Event(), asyncio.Event()
    running = 0

    @till.app.get("/slow", dependencies=[cached(ttl=60, tags=["price"])])
    async def slow() -> int:
        nonlocal running
        running += 1
        entered.set()
        await leave.wait()
        return till.read()

    write = begin(till.app, "PUT", "/write")
    await settle()
    assert write.started
    first = begin(till.app, "GET", "/slow")
    await entered.wait()
    second = begin(till.app, "GET", "/slow")
    await settle()
    assert running == 2
    leave.set()
    await first.answer()
    await second.answer()
    till.may_commit.set()
    await write.answer()


async def test_a_slow_client_of_a_late_released_response_does_not_delay_the_second_purge() -> None:
    """The commit is purged when the app returns, whether or not the client has taken its answer by then."""
    till = Till()
    till.writes(lambda: {"ok": True})
    client_takes = asyncio.Event()
    call = begin(till.app, "PUT", "/write")

    async def slow(message: Any) -> None:
        await client_takes.wait()

    call._on_send = slow
    await settle()
    till.clock.tick(0.2)
    await settle()
    assert (await till.get("/price")).json() == 1
    till.may_commit.set()
    await settle()
    assert (await till.get("/price")).json() == 2
    client_takes.set()
    assert (await call.answer()).purge == "queued"


async def test_a_request_cancelled_while_its_late_response_is_on_its_way_still_purges_after_the_commit() -> None:
    """The app has returned and committed; the client is slow; the server gives up: what was read before the commit goes."""
    till = Till()
    till.writes(lambda: {"ok": True})
    call = begin(till.app, "PUT", "/write")

    async def never(message: Any) -> None:
        await asyncio.get_running_loop().create_future()

    call._on_send = never
    await settle()
    till.clock.tick(0.2)
    await settle()
    assert (await till.get("/price")).json() == 1
    till.may_commit.set()
    await settle()
    call.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.answer()
    await settle()
    assert (await till.get("/price")).json() == 2
    assert not till.cache._core.engine.replica.fenced(("price",))


@pytest.mark.parametrize(
    ("respond", "held"),
    [
        (lambda: Response(b"x" * 65_536), True),
        (lambda: Response(b"x" * 65_537), False),
        (lambda: Response(status_code=204), True),
        (lambda: Response(status_code=205), True),
        (lambda: JSONResponse({}), True),
        (lambda: Response(b"data: x\n\n", media_type="text/event-stream"), False),
        (lambda: Response(b"data: x\n\n", media_type="Text/Event-Stream; charset=utf-8"), False),
        (lambda: StreamingResponse(iter([b"x"])), False),
        (lambda: StreamingResponse(iter([b"x"]), headers={"content-length": "1"}), True),
        (lambda: Response(b"", headers={"location": "/elsewhere"}, status_code=303), True),
    ],
    ids=["64 KiB", "64 KiB + 1", "204", "205", "json", "sse", "SSE", "stream", "stream of known length", "redirect"],
)
async def test_only_small_complete_responses_are_held(respond: Any, held: bool) -> None:
    """A length of up to 64 KiB, or no body; all else is released at once with its purge queued, and purged again."""
    till = Till()
    till.writes(respond)
    await till.get("/price")
    call = begin(till.app, "PUT", "/write")
    await settle()
    assert call.started is not held
    assert (await till.get("/price")).json() == 1
    till.may_commit.set()
    answer = await call.answer()
    assert answer.purge == ("done" if held else "queued")
    assert (await till.get("/price")).json() == 2


async def test_a_body_longer_than_it_said_is_released_when_it_is_too_long_to_hold() -> None:
    """A length is a promise of the app's; what is held in memory is bounded all the same."""
    shop = Shop()
    hold = asyncio.Event()

    async def liar(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        await send({"type": "http.response.body", "body": b"x" * 60_000, "more_body": True})
        await send({"type": "http.response.body", "body": b"x" * 60_000, "more_body": True})
        await hold.wait()
        await send({"type": "http.response.body", "body": b"x"})

    @shop.app.get("/raw", dependencies=[cached(ttl=60)])
    async def read() -> int:
        return 1

    class Liar:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await (liar if scope.get("method") == "PUT" else self.app)(scope, receive, send)

    app = FastAPI()
    app.routes[:] = shop.app.routes
    app.add_middleware(Liar)
    app.add_middleware(CacheMiddleware, cache=shop.cache)
    call = begin(app, "PUT", "/raw")
    await settle()
    assert sum(len(message.get("body", b"")) for message in call.messages) == 120_000
    hold.set()
    assert len((await call.answer()).body) == 120_001


async def test_streams_and_event_streams_are_sent_chunk_by_chunk() -> None:
    """Each chunk goes out when it is made, long before the commit."""
    till = Till()
    goes_on = asyncio.Event()

    @till.app.post("/events", dependencies=[invalidates("price")], response_class=EventSourceResponse)
    async def events(session: Any = till.session) -> AsyncIterator[int]:
        yield 1
        await goes_on.wait()
        yield 2

    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"
        await goes_on.wait()
        yield b"two"

    till.writes(lambda: StreamingResponse(chunks()))
    for method, path, piece in (("POST", "/events", b"data: 1"), ("PUT", "/write", b"one")):
        goes_on.clear()
        till.may_commit.clear()
        call = begin(till.app, method, path)
        await settle()
        assert piece in b"".join(message.get("body", b"") for message in call.messages), path
        goes_on.set()
        till.may_commit.set()
        assert (await call.answer()).purge == "queued"


async def test_a_file_sent_by_its_path_is_not_held_until_it_is_gone(tmp_path: Any) -> None:
    """A background task may delete the file: a server that sends it by path must be told while it is there."""
    till = Till()
    path = tmp_path / "receipt"
    path.write_text("paid")
    seen: list[bool] = []
    till.writes(lambda: FileResponse(path, background=BackgroundTask(path.unlink)))
    call = begin(till.app, "PUT", "/write")
    call._scope["extensions"] = {"http.response.pathsend": {}}

    async def look(message: Any) -> None:
        if message["type"] == "http.response.pathsend":
            seen.append(path.exists())

    call._on_send = look
    till.may_commit.set()
    answer = await call.answer()
    if seen:
        assert (answer.purge, seen) == ("queued", [True])
    else:
        # Older releases of the framework hand the file's bytes over, which may be held.
        assert (answer.purge, answer.body) == ("done", b"paid")


@pytest.mark.parametrize(
    "error",
    [RuntimeError("disk full"), HTTPException(409), ValueError("conflict")],
    ids=lambda error: type(error).__name__,
)
async def test_a_commit_that_raises_drops_the_held_response_and_purges(error: Exception) -> None:
    """The client never sees the 2xx: it sees a 500, whatever the commit raised; the outcome is unknown, so it is purged."""
    till = Till(commit=error)
    till.writes(lambda: {"ok": True})

    @till.app.exception_handler(ValueError)
    async def conflict(request: Any, error: Any) -> Any:
        return JSONResponse({}, 409)

    await till.get("/price")
    call = begin(till.app, "PUT", "/write")
    till.may_commit.set()
    with pytest.raises((RuntimeError, HTTPException, ValueError)):
        await call.task
    assert [message.get("status") for message in call.messages if message["type"] == "http.response.start"] == [500]
    assert_miss(await till.get("/price"))
    assert not till.cache._core.engine.replica.fenced(("price",))


async def test_a_function_scoped_commit_that_raises_is_answered_by_the_authors_handler() -> None:
    """Before the response has begun the author's handlers still answer; a 4xx of theirs purges nothing."""
    till = Till(scope="function", commit=ValueError("conflict"))
    till.writes(lambda: {"ok": True})

    @till.app.exception_handler(ValueError)
    async def conflict(request: Any, error: Any) -> Any:
        return JSONResponse({}, 409)

    await till.get("/price")
    till.may_commit.set()
    assert (await till.put("/write")).status_code == 409
    assert_hit(await till.get("/price"))


async def test_a_commit_that_raises_after_a_late_release_is_purged_again() -> None:
    """The 2xx is out; what the failed commit left behind is unknown, and so it is purged once more, and the fence ends."""
    till = Till(commit=RuntimeError("disk full"))
    till.writes(lambda: {"ok": True})
    call = begin(till.app, "PUT", "/write")
    await settle()
    till.clock.tick(0.2)
    await settle()
    await till.get("/price")
    till.may_commit.set()
    with pytest.raises(RuntimeError):
        await call.task
    assert [message.get("status") for message in call.messages if "status" in message] == [200]
    assert_miss(await till.get("/price"))
    assert not till.cache._core.engine.replica.fenced(("price",))


@pytest.mark.parametrize("end", ["returns", "raises", "is cancelled"])
async def test_the_alarm_of_the_hold_and_the_end_of_the_app_in_one_step_give_one_answer(end: str) -> None:
    """Whichever of the two comes first, there is one answer, no fence is left over, and the last purge follows the commit."""
    till = Till(commit=RuntimeError("disk full") if end == "raises" else None)
    till.writes(lambda: {"ok": True})
    for steps in range(14):
        till.value = 1
        till.may_commit.clear()
        call = begin(till.app, "PUT", "/write")
        await settle()
        till.clock.tick(0.2)
        for _ in range(steps):
            await asyncio.sleep(0)
        # Just before the commit a reader reads what is old.
        reader = await till.get("/price")
        assert reader.json() == 1
        if end == "is cancelled":
            till.value = 2
            call.task.cancel()
        else:
            till.may_commit.set()
        await asyncio.wait([call.task])
        await settle()
        starts = [message["status"] for message in call.messages if message["type"] == "http.response.start"]
        if end == "returns":
            assert starts == [200]
        elif end == "raises":
            assert starts in ([200], [500])
            assert call.task.exception() is not None
        else:
            assert starts in ([], [200])
        if end == "raises":
            till.value = 2
        after = await till.get("/price")
        assert after.json() == 2, steps
        assert not till.cache._core.engine.replica.fenced(("price",)), steps


async def test_a_commit_between_the_early_purge_and_its_end_is_purged_again_when_the_request_is_cancelled() -> None:
    """The early purge is numbered, the commit follows at once, and so does the cancellation: the second purge must come."""
    till = Till()
    till.writes(lambda: {"ok": True})
    log: Any = till.cache._core.bus
    numbered, goes_on = asyncio.Event(), asyncio.Event()
    publish = log.publish

    async def gated(proposal: Any) -> Any:
        line = await publish(proposal)
        if not numbered.is_set():
            numbered.set()
            await goes_on.wait()
        return line

    log.publish = gated
    call = begin(till.app, "PUT", "/write")
    await settle()
    till.clock.tick(0.2)
    await numbered.wait()
    assert (await till.get("/price")).json() == 1
    till.value = 2
    call.task.cancel()
    await asyncio.wait([call.task])
    goes_on.set()
    await settle()
    assert (await till.get("/price")).json() == 2


async def test_a_threaded_session_is_waited_for_as_well() -> None:
    """A plain `yield` dependency exits in a thread: the response is held for it all the same."""
    shop = Shop()

    def session() -> Iterator[list[int]]:
        pending: list[int] = []
        yield pending
        shop.value = pending[0]

    @shop.app.get("/price", dependencies=[cached(ttl=60, tags=["price"])])
    def read() -> int:
        return shop.read()

    session_of_the_request: Any = Depends(session)

    @shop.app.put("/write", dependencies=[invalidates("price")])
    def write(pending: Any = session_of_the_request) -> None:
        pending.append(2)

    await shop.get("/price")
    assert (await shop.put("/write")).purge == "done"
    assert (await shop.get("/price")).json() == 2


async def test_a_yield_dependency_below_another_dependency_holds_too() -> None:
    """However deep in the tree it stands, and whoever else uses it, its exit comes after the response."""
    till = Till()

    async def repository(session: Any = till.session) -> Any:
        return session

    through: Any = Depends(repository)

    @till.app.put("/deep", dependencies=[invalidates("price")])
    async def write(repository: Any = through) -> None:
        repository.pending = 2

    await till.get("/price")
    call = begin(till.app, "PUT", "/deep")
    await settle()
    assert not call.started
    till.may_commit.set()
    await call.answer()
    assert (await till.get("/price")).json() == 2
