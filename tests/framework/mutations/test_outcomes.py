"""What ends a mutation decides whether it purges: an answer below 400 and every unknown outcome do, a refusal does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException, Response
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse
from starlette.middleware.base import BaseHTTPMiddleware

from fastapi_cacheinval import CacheMiddleware, CacheTags, HTTPCache, cached, invalidates
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.mutations import Shop, ask, begin, get, settle

pytestmark = pytest.mark.anyio


def _shop(**options: Any) -> Shop:
    shop = Shop(**options)

    @shop.app.get("/price", dependencies=[cached(ttl=60, tags=["price"])])
    async def read() -> int:
        return shop.read()

    return shop


@pytest.mark.parametrize("status", [200, 201, 202, 204, 205, 301, 303, 307, 399])
async def test_an_answer_below_400_purges(status: int) -> None:
    """2xx and 3xx are answers of a request that was carried out."""
    shop = _shop()

    @shop.app.put("/write", dependencies=[invalidates("price")])
    async def write() -> Response:
        return Response(status_code=status)

    await shop.get("/price")
    assert (await shop.put("/write")).purge == "done"
    assert_miss(await shop.get("/price"))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 422, 429, 500, 503])
@pytest.mark.parametrize("how", ["returned", "raised", "raised by a dependency"])
async def test_a_status_of_400_or_more_that_the_app_chose_purges_nothing(status: int, how: str) -> None:
    """Returned or raised as `HTTPException`: nothing was changed, and a 401 must never empty a cache."""
    shop = _shop()

    async def guard() -> None:
        if how == "raised by a dependency":
            raise HTTPException(status)

    @shop.app.put("/write", dependencies=[invalidates("price"), Depends(guard)])
    async def write(tags: CacheTags) -> Response:
        tags.add("price")
        if how == "raised":
            raise HTTPException(status)
        return Response(status_code=status, headers={"surrogate-key": "price", "location": "/price"})

    await shop.get("/price")
    answer = await shop.put("/write")
    assert (answer.status_code, answer.purge) == (status, None)
    assert_hit(await shop.get("/price"))
    assert shop.cache.statistics().purges == {}


async def test_a_validation_error_purges_nothing() -> None:
    """FastAPI's 422 came before the handler."""
    shop = _shop()

    @shop.app.put("/write/{number}", dependencies=[invalidates("price", "number:{number}")])
    async def write(number: int) -> None: ...

    await shop.get("/price")
    assert (await shop.put("/write/x")).status_code == 422
    assert_hit(await shop.get("/price"))


async def test_a_method_or_path_that_does_not_exist_purges_nothing() -> None:
    """405 and 404 are the router's own."""
    shop = _shop()
    await shop.get("/price")
    assert (await ask(shop.app, "DELETE", "/price")).status_code == 405
    assert (await ask(shop.app, "PURGE", "/price")).status_code == 405
    assert (await ask(shop.app, "DELETE", "/nowhere")).status_code == 404
    assert_hit(await shop.get("/price"))


async def test_an_error_that_the_authors_handler_answers_with_400_or_more_purges_nothing() -> None:
    """An exception handler that answers makes it an answer that the app chose."""
    shop = _shop()

    @shop.app.exception_handler(KeyError)
    async def missing(request: Any, error: Any) -> Response:
        return Response(status_code=404)

    @shop.app.put("/write", dependencies=[invalidates("price")])
    async def write() -> None:
        raise KeyError("price")

    await shop.get("/price")
    assert (await shop.put("/write")).status_code == 404
    assert_hit(await shop.get("/price"))


@pytest.mark.parametrize("outside", [False, True], ids=["add_middleware", "CacheMiddleware(app)"])
@pytest.mark.parametrize("handled", [False, True], ids=["unhandled", "handler for Exception"])
async def test_an_unhandled_exception_in_the_handler_purges(outside: bool, handled: bool) -> None:
    """Half of it may have been done: the outcome is unknown, wherever the middleware stands and however it is answered."""
    app = FastAPI()
    cache = HTTPCache()
    value = 1

    @app.get("/price", dependencies=[cached(ttl=60, tags=["price"])])
    async def read() -> int:
        return value

    @app.put("/write", dependencies=[invalidates("price")])
    async def write() -> None:
        nonlocal value
        value = 2
        raise RuntimeError("after the write")

    if handled:

        @app.exception_handler(Exception)
        async def sorry(request: Any, error: Exception) -> Response:
            return Response(status_code=500)

    asgi: Any = app
    if outside:
        asgi = CacheMiddleware(app, cache=cache)
    else:
        app.add_middleware(CacheMiddleware, cache=cache)
    await get(asgi, "/price")
    call = begin(asgi, "PUT", "/write")
    with pytest.raises(RuntimeError):
        await call.task
    assert [message["status"] for message in call.messages if "status" in message] == [500]
    assert (await get(asgi, "/price")).json() == 2


async def test_an_exception_on_exit_of_a_dependency_after_a_refusal_purges() -> None:
    """A 404 was answered, and then the commit failed: what that did is unknown."""
    shop = _shop()

    async def session() -> AsyncIterator[None]:
        try:
            yield
        finally:
            shop.value = 2
            raise RuntimeError("on exit")

    @shop.app.put("/write", dependencies=[invalidates("price"), Depends(session)])
    async def write() -> Response:
        return Response(status_code=404)

    await shop.get("/price")
    with pytest.raises(RuntimeError):
        await shop.put("/write")
    assert (await shop.get("/price")).json() == 2


async def test_a_stream_that_breaks_off_purges_again() -> None:
    """What the rest of a stream wrote before it failed came after the purge at its start."""
    shop = _shop()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"
        assert (await shop.get("/price")).json() == 1
        shop.value = 2
        raise RuntimeError("in the middle")

    @shop.app.put("/write", dependencies=[invalidates("price")])
    async def write() -> StreamingResponse:
        return StreamingResponse(chunks())

    with pytest.raises(RuntimeError):
        await shop.put("/write")
    assert (await shop.get("/price")).json() == 2


_POINTS = (
    "dependency",
    "handler before the write",
    "handler after the write",
    "background",
    "commit",
    "after the commit",
)


# A cancellation from outside does not reach a dependency's exit through `BaseHTTPMiddleware`, cache or not.
@pytest.mark.parametrize(
    ("point", "inside"),
    [*((point, False) for point in _POINTS), *((point, True) for point in _POINTS[:4])],
    ids=lambda value: value if isinstance(value, str) else ("inside BaseHTTPMiddleware" if value else "bare"),
)
async def test_a_request_cancelled_at_any_await_of_its_handler_or_after_it_still_purges(
    point: str, inside: bool
) -> None:
    """The cache's own task purges, and no fence is left; nothing is purged before the handler was called."""
    shop = Shop()
    reached = asyncio.Event()

    async def stop(here: str) -> None:
        if here == point:
            reached.set()
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(0)

    async def session() -> AsyncIterator[None]:
        await stop("dependency")
        try:
            yield
            await stop("commit")
        finally:
            shop.value = 2
        await stop("after the commit")

    @shop.app.get("/price", dependencies=[cached(ttl=60, tags=["price"])])
    async def read() -> int:
        return shop.read()

    class Task:
        async def __call__(self) -> None:
            await stop("background")

    @shop.app.put("/write", dependencies=[Depends(session), invalidates("price")])
    async def write() -> Response:
        await stop("handler before the write")
        shop.value = 2
        await stop("handler after the write")
        return JSONResponse({}, background=Task())  # type: ignore[arg-type]  # awaited like one

    app: Any = shop.app
    if inside:

        class Passes(BaseHTTPMiddleware):
            async def dispatch(self, request: Any, call_next: Any) -> Any:
                return await call_next(request)

        app = FastAPI()
        app.routes[:] = shop.app.routes
        app.add_middleware(Passes)
        app.add_middleware(CacheMiddleware, cache=shop.cache)
    assert (await get(app, "/price")).json() == 1
    call = begin(app, "PUT", "/write")
    await reached.wait()
    assert_hit(await get(app, "/price"))
    call.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.task
    if point == "dependency":
        assert_hit(await get(app, "/price"))
        assert shop.cache.statistics().purges == {}
        return
    # At once: whoever asks before the purge has its number is not answered from the cache either.
    after = begin(app, "GET", "/price")
    assert_miss(await after.answer())
    await settle()
    assert_hit(await get(app, "/price"))
    assert shop.cache.statistics().purges["published"] >= 1
    assert not shop.cache._core.engine.replica.fenced(("price",))
    assert all(message.get("status") != 200 for message in call.messages), "a held answer went out"


@pytest.mark.parametrize("steps", range(40))
async def test_a_request_cancelled_at_any_step_of_the_loop_leaves_nothing_old(steps: int) -> None:
    """However many steps the loop made before, once the cancelled request has ended the next one reads what is there."""
    shop = _shop()

    async def session() -> AsyncIterator[list[int]]:
        pending: list[int] = []
        yield pending
        await asyncio.sleep(0)
        shop.value = pending[0]
        await asyncio.sleep(0)

    session_of_the_request: Any = Depends(session)

    @shop.app.put("/write", dependencies=[invalidates("price")])
    async def write(pending: Any = session_of_the_request) -> dict[str, bool]:
        await asyncio.sleep(0)
        pending.append(2)
        return {"ok": True}

    await shop.get("/price")
    call = begin(shop.app, "PUT", "/write")
    for _ in range(steps):
        await asyncio.sleep(0)
    # A reader that reads just before, whatever it reads.
    await shop.get("/price")
    call.task.cancel()
    await asyncio.wait([call.task])
    assert (await shop.get("/price")).json() == shop.value
    await settle()
    assert (await shop.get("/price")).json() == shop.value
    assert not shop.cache._core.engine.replica.fenced(("price",))


async def test_a_cancelled_request_is_purged_although_its_cache_is_stopped_at_once() -> None:
    """Shutdown gives purges under way their last while, and reports none as lost."""
    shop = _shop()
    entered = asyncio.Event()

    @shop.app.put("/write", dependencies=[invalidates("price")])
    async def write() -> None:
        entered.set()
        await asyncio.get_running_loop().create_future()

    await shop.cache.start()
    call = begin(shop.app, "PUT", "/write")
    await entered.wait()
    call.task.cancel()
    await asyncio.wait([call.task])
    await shop.cache.stop()
    assert shop.cache.statistics().purges == {"published": 1}


@pytest.mark.parametrize("switch", ["made with", "at run time", "environment"])
async def test_the_kill_switch_does_not_stop_purges(switch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the cache is off everything is forwarded, and every purge is made; switched on again nothing old comes back."""
    if switch == "environment":
        monkeypatch.setenv("CACHEINVAL_ENABLED", "0")
    cache = HTTPCache(enabled=switch != "made with")
    shop = _shop(cache=cache)
    cache.enabled = True

    @shop.app.put("/price", dependencies=[invalidates("price")])
    async def write() -> None:
        shop.value = 2

    await shop.get("/price")
    assert_hit(await shop.get("/price"))
    cache.enabled = False
    assert (await shop.put("/price")).purge == "done"
    assert (await shop.get("/price")).json() == 2
    cache.enabled = True
    after = await shop.get("/price")
    assert_miss(after)
    assert after.json() == 2


async def test_a_cache_made_off_publishes_every_purge() -> None:
    """`enabled=False` from the start is no reason to lose a purge that replicas which are on must hear of."""
    shop = _shop(cache=HTTPCache(enabled=False))

    @shop.app.put("/write", dependencies=[invalidates("price")])
    async def write() -> None: ...

    assert (await shop.put("/write")).purge == "done"
    assert shop.cache.statistics().purges == {"published": 1}


async def test_a_mutation_with_nothing_to_purge_is_untouched() -> None:
    """The same messages, object for object, with no field of ours; its background task runs after the response."""
    shop = Shop()
    sent: list[Any] = []

    class Spy:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def note(message: Any) -> None:
                sent.append(message)
                await send(message)

            await self.app(scope, receive, note)

    @shop.app.post("/orders")
    async def order() -> Response:
        return StreamingResponse(iter([b"a", b"b"]), headers={"x-own": "1"})

    app = FastAPI()
    app.routes[:] = shop.app.routes
    app.add_middleware(Spy)
    app.add_middleware(CacheMiddleware, cache=shop.cache)
    call = begin(app, "POST", "/orders")
    await call.task
    assert len(call.messages) == len(sent) > 2
    assert all(got is given for got, given in zip(call.messages, sent, strict=True))
    assert shop.cache.statistics().purges == {}


async def test_a_redirect_after_a_post_purges_the_page_it_leads_to() -> None:
    """The page after the form shows what the form has changed."""
    shop = _shop()

    @shop.app.post("/forms")
    async def form() -> RedirectResponse:
        shop.value = 2
        return RedirectResponse("/price", 303)

    await shop.get("/price")
    assert (await ask(shop.app, "POST", "/forms")).purge == "done"
    assert (await shop.get("/price")).json() == 2
