"""What a handler did decides what is purged, whatever status a layer around it makes of that."""

# No postponed annotations: handlers name classes and callables of their own test.

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import ResponseValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.routing import APIRoute
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Route

from fastapi_cacheinval import cached, invalidates
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.mutations import Shop, until

pytestmark = pytest.mark.anyio


class _Conflict(Exception):
    pass


def _shop(inside: Any = None, **options: Any) -> Shop:
    app = FastAPI()
    if inside is not None:
        app.add_middleware(inside, **options)
    shop = Shop(app=app)

    @shop.app.get("/price", dependencies=[cached(ttl=60, tags=["price"])])
    async def read() -> int:
        return shop.read()

    return shop


class _Around:
    """A middleware that answers by itself where the app is too late, fails or has answered."""

    def __init__(self, app: Any, status: int = 504, *, replaces: bool = False) -> None:
        self.app = app
        self.answer = Response(status_code=status)
        self.replaces = replaces

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] == "GET":
            await self.app(scope, receive, send)
            return

        async def nowhere(message: Any) -> None: ...

        try:
            async with asyncio.timeout(0.05 if "late" in scope["path"] or "price" in scope["path"] else 10):
                await self.app(scope, receive, nowhere if self.replaces else send)
        except (TimeoutError, RuntimeError):
            await self.answer(scope, receive, send)
        else:
            if self.replaces:
                await self.answer(scope, receive, send)


class _AroundBase(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Response:
        try:
            async with asyncio.timeout(0.05 if request.url.path == "/late" else 10):
                response: Response = await call_next(request)
        except (TimeoutError, RuntimeError):
            response = Response(status_code=504)
        return response


# An older `BaseHTTPMiddleware` raises what it has caught once more.
@pytest.mark.parametrize(
    ("inside", "how"),
    [(_Around, "too late"), (_AroundBase, "too late"), (_Around, "raises"), (_Around, "thread raises")],
)
async def test_a_handler_that_a_layer_gives_up_on_has_an_unknown_outcome(inside: Any, how: str) -> None:
    """A timeout of the author's cancels what has written, and a catch-all answers what has failed after its write."""
    shop = _shop(inside)

    async def late() -> None:
        shop.value = 2
        if how == "raises":
            raise RuntimeError("after the write")
        await asyncio.sleep(0.2)

    def fails() -> None:
        shop.value = 2
        raise RuntimeError("after the write")

    path = "/late" if how == "too late" else "/write"
    endpoint = fails if how == "thread raises" else late
    shop.app.add_api_route(path, endpoint, methods=["PUT"], dependencies=[invalidates("price")])
    await shop.get("/price")
    answer = await shop.put(path)
    assert (answer.status_code, answer.purge) == (504, "done")
    assert (await shop.get("/price")).json() == 2


@pytest.mark.parametrize("status", [202, 408, 504])
async def test_a_thread_that_goes_on_after_its_request_purges_once_it_is_over(status: int) -> None:
    """A cancellation does not reach the thread of a plain function: nothing old is kept until it has ended."""
    shop = _shop(_Around, status=status)
    go = threading.Event()
    wrote = threading.Event()

    @shop.app.put("/late", dependencies=[invalidates("price")])
    def write() -> None:
        assert go.wait(10)
        shop.value = 2
        wrote.set()

    await shop.get("/price")
    assert (await shop.put("/late")).status_code == status
    replica = shop.cache._core.engine.replica
    assert replica.fenced(("price",))
    assert (await shop.get("/price")).json() == 1
    go.set()
    # The thread has written before the loop hears of its end.
    await until(wrote.is_set)
    await until(lambda: not replica.fenced(("price",)))
    assert (await shop.get("/price")).json() == 2
    assert_hit(await shop.get("/price"))


async def test_a_cancelled_request_whose_thread_goes_on_purges_once_it_is_over() -> None:
    """The same where a server cancels the whole request."""
    shop = _shop()
    entered, go = threading.Event(), threading.Event()

    @shop.app.put("/write", dependencies=[invalidates("price")])
    def write() -> None:
        entered.set()
        assert go.wait(10)
        shop.value = 2

    await shop.get("/price")
    task = asyncio.create_task(shop.put("/write"))
    await until(entered.is_set)
    task.cancel()
    await asyncio.wait([task])
    assert (await shop.get("/price")).json() == 1
    go.set()
    replica = shop.cache._core.engine.replica
    await until(lambda: not replica.fenced(("price",)))
    assert (await shop.get("/price")).json() == 2


@pytest.mark.parametrize("status", [400, 404, 409, 500, 502, 504])
async def test_what_a_handler_has_done_is_purged_although_a_layer_answers_with_an_error(status: int) -> None:
    """The handler returned, so it happened."""
    shop = _shop(_Around, status=status, replaces=True)

    @shop.app.put("/write", dependencies=[invalidates("price")])
    async def write() -> None:
        shop.value = 2

    await shop.get("/price")
    assert (await shop.put("/write")).status_code == status
    assert (await shop.get("/price")).json() == 2


@pytest.mark.parametrize("name", ["Location", "Content-Location", "Surrogate-Key"])
async def test_what_a_handler_has_named_is_purged_although_a_layer_answers_with_an_error(name: str) -> None:
    """A tag, or a path elsewhere: the layer's answer names neither."""
    shop = _shop(_Around, status=500, replaces=True)

    @shop.app.put("/write")
    async def write(response: Response) -> None:
        shop.value = 2
        response.headers[name] = "price" if name == "Surrogate-Key" else "/price"

    await shop.get("/price")
    assert (await shop.put("/write")).status_code == 500
    assert (await shop.get("/price")).json() == 2


@pytest.mark.parametrize("status", [200, 303, 404, 504])
@pytest.mark.parametrize("how", ["raised", "returned", "injected"])
async def test_what_a_handler_has_refused_is_not_purged_whatever_a_layer_makes_of_it(how: str, status: int) -> None:
    """An envelope that answers every error with 200 changes nothing of what happened."""
    shop = _shop(_Around, status=status, replaces=True)

    @shop.app.put("/write", dependencies=[invalidates("price")])
    async def write(response: Response) -> Any:
        if how == "raised":
            raise HTTPException(409)
        response.status_code = 409
        return None if how == "injected" else Response(status_code=409)

    await shop.get("/price")
    assert (await shop.put("/write")).status_code == status
    assert_hit(await shop.get("/price"))


@pytest.mark.parametrize(("status", "purges"), [(409, False), (500, True), (502, True), (200, True)])
@pytest.mark.parametrize("how", ["async", "thread"])
async def test_an_exception_that_an_exception_handler_answers_purges_unless_that_is_a_4xx(
    how: str, status: int, purges: bool
) -> None:
    """A 4xx is what the app chose to refuse with; a 5xx says that nobody knows what happened."""
    shop = _shop()

    @shop.app.exception_handler(_Conflict)
    async def answers(request: Request, error: Exception) -> Response:
        return Response(status_code=status)

    async def fails() -> None:
        raise _Conflict

    def fails_in_a_thread() -> None:
        raise _Conflict

    endpoint: Callable[[], Any] = fails if how == "async" else fails_in_a_thread
    shop.app.add_api_route("/write", endpoint, methods=["PUT"], dependencies=[invalidates("price")])
    await shop.get("/price")
    assert (await shop.put("/write")).status_code == status
    assert (await shop.kept("/price")) is not purges


async def test_a_result_that_does_not_validate_is_purged_although_it_is_answered_with_500() -> None:
    """The handler had returned."""
    shop = _shop()

    @shop.app.exception_handler(ResponseValidationError)
    async def answers(request: Request, error: Exception) -> Response:
        return Response(status_code=500)

    @shop.app.put("/write", dependencies=[invalidates("price")], response_model=list[int])
    async def write() -> Any:
        shop.value = 2
        return "no list"

    await shop.get("/price")
    assert (await shop.put("/write")).status_code == 500
    assert (await shop.get("/price")).json() == 2


async def test_a_commit_before_the_response_that_fails_with_502_is_purged() -> None:
    """What a failed commit did is unknown."""
    shop = _shop()

    @shop.app.exception_handler(_Conflict)
    async def answers(request: Request, error: Exception) -> Response:
        return Response(status_code=502)

    async def session() -> Any:
        yield
        shop.value = 2
        raise _Conflict

    @shop.app.put("/write", dependencies=[invalidates("price"), Depends(session, scope="function")])
    async def write() -> None: ...

    await shop.get("/price")
    assert (await shop.put("/write")).status_code == 502
    assert (await shop.get("/price")).json() == 2


@pytest.mark.parametrize("second", ["refuses", "is stopped"])
async def test_of_several_attempts_the_one_that_did_most_counts(second: str) -> None:
    """A middleware that asks again gets a refusal for what the first attempt has done."""

    class Twice:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def nowhere(message: Any) -> None: ...

            if scope["type"] == "http" and scope["method"] == "PUT":
                await self.app(dict(scope), receive, nowhere)
            await self.app(scope, receive, send)

    shop = _shop(Twice)
    asked = 0

    async def stops() -> None:
        if second == "is stopped" and asked:
            raise HTTPException(303)

    @shop.app.put("/write", dependencies=[invalidates("price"), Depends(stops)])
    async def write() -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise HTTPException(503)
        shop.value = 2

    await shop.get("/price")
    await shop.put("/write")
    assert (await shop.get("/price")).json() == 2


async def test_a_plain_starlette_route_that_a_layer_gives_up_on_is_purged() -> None:
    """It was given the request, and was cancelled."""
    shop = _shop(_Around)

    async def write(request: Request) -> Response:
        shop.value = 2
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    shop.app.router.routes.append(Route("/price", write, methods=["PUT"]))
    await shop.get("/price")
    assert (await shop.put("/price")).status_code == 504
    assert (await shop.get("/price")).json() == 2


# -- route classes of the author's ----------------------------------------------------------------


def _class(handle: Callable[[Request, Any], Any]) -> type[APIRoute]:
    class Own(APIRoute):
        def get_route_handler(self) -> Callable[..., Any]:
            usual = super().get_route_handler()

            async def own(request: Request) -> Response:
                answer: Response = await handle(request, usual)
                return answer

            return own

    return Own


async def _routed(handle: Callable[[Shop, Request, Any], Any], endpoint: Callable[[Shop], Any]) -> bool:
    """Whether a write through a route class purges what `invalidates()` names."""
    shop = _shop()
    router = APIRouter(route_class=_class(lambda request, usual: handle(shop, request, usual)))

    async def stops(request: Request) -> None:
        if "x-stop" in request.headers:
            raise HTTPException(303)
        if "x-break" in request.headers:
            raise RuntimeError

    @router.put("/write/{name}", dependencies=[Depends(stops), invalidates("{name}")])
    async def write(name: str) -> Any:
        return endpoint(shop)

    @shop.app.exception_handler(RuntimeError)
    async def answers(request: Request, error: Exception) -> Response:
        return Response(status_code=500)

    shop.app.include_router(router)
    await shop.get("/price")
    if handle is _in_a_fresh_context:
        for field in ("x-stop", "x-break"):
            await shop.put("/write/price", headers=[(field, "1")])
            assert_hit(await shop.get("/price"))
    await shop.put("/write/price")
    return not await shop.kept("/price")


def _writes(shop: Shop) -> int:
    shop.value += 1
    return shop.value


async def _answers_itself(shop: Shop, request: Request, usual: Any) -> Response:
    return JSONResponse(_writes(shop), 201)


async def _redirects_itself(shop: Shop, request: Request, usual: Any) -> Response:
    _writes(shop)
    return RedirectResponse("/x", 303)


async def _raises_a_redirect_itself(shop: Shop, request: Request, usual: Any) -> Response:
    _writes(shop)
    raise HTTPException(303)


async def _fails_itself(shop: Shop, request: Request, usual: Any) -> Response:
    _writes(shop)
    raise RuntimeError


async def _answers_in_its_place(shop: Shop, request: Request, usual: Any) -> Response:
    await usual(request)
    return RedirectResponse("/x", 303)


async def _answers_its_error(shop: Shop, request: Request, usual: Any) -> Response:
    await usual(request)
    return Response(status_code=500)


async def _in_a_fresh_context(shop: Shop, request: Request, usual: Any) -> Response:
    task = asyncio.get_running_loop().create_task(usual(request), context=contextvars.Context())
    response: Response = await task
    return response


@pytest.mark.parametrize(
    "handle",
    [
        _answers_itself,
        _redirects_itself,
        _raises_a_redirect_itself,
        _fails_itself,
        _answers_in_its_place,
        _answers_its_error,
        _in_a_fresh_context,
    ],
)
async def test_a_route_class_that_may_have_written_counts_as_one_that_did(handle: Any) -> None:
    """Whatever it does beside the usual handler; what its dependencies stop is still seen."""
    assert await _routed(handle, _writes)


async def test_a_redirect_that_a_handler_raises_in_a_fresh_context_counts_as_its_own() -> None:
    """Its call cannot be noted there."""

    def redirects(shop: Shop) -> None:
        _writes(shop)
        raise HTTPException(303)

    assert await _routed(_in_a_fresh_context, redirects)


async def test_what_a_handler_refuses_under_a_route_class_is_not_purged() -> None:
    """A class that only passes on changes nothing of the rule."""

    async def passes_on(shop: Shop, request: Request, usual: Any) -> Response:
        response: Response = await usual(request)
        return response

    def refuses(shop: Shop) -> Response:
        return Response(status_code=409)

    def raises(shop: Shop) -> None:
        raise HTTPException(404)

    assert not await _routed(passes_on, refuses)
    assert not await _routed(passes_on, raises)
