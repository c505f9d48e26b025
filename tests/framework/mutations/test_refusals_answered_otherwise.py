"""A 404 or 405 that the app's own exception handler answers with 200 or a redirect: no handler ran, nothing is purged."""

# No postponed annotations: handlers name classes and callables of their own test.

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount, Route, Router

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from tests.helpers.mutations import ask, get

pytestmark = pytest.mark.anyio

METHODS = ("POST", "PUT", "PATCH", "DELETE", "FOO")


class _Handing(APIRoute):
    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        await super().handle(scope, receive, send)


class _Timed(APIRoute):
    def get_route_handler(self) -> Callable[..., Any]:
        handler = super().get_route_handler()

        async def timed(request: Request) -> Response:
            return await handler(request)

        return timed


async def _page() -> Response:
    return Response(b"page", headers={"cache-control": "max-age=60"})


async def _plain(request: Request) -> Response:
    return Response(b"plain")


def _on(router: Any, prefix: str = "") -> Any:
    for path in ("/", "/pages", "/pages/{number}"):
        router.add_api_route(f"{prefix}{path}", _page, dependencies=[cached(ttl=60, jitter=0, early_refresh=0)])
    return router


def _of(kind: type[APIRoute]) -> FastAPI:
    app = FastAPI()
    app.router.route_class = kind
    return app


def _with(app: Any, *routes: Any) -> Any:
    app.routes.extend(routes)
    return app


def _included(*routers: Any) -> FastAPI:
    app = FastAPI(redirect_slashes=False)
    for router in routers:
        app.include_router(router)
    return app


APPS: dict[str, Callable[[], Any]] = {
    "app": lambda: _on(FastAPI()),
    "included": lambda: _included(_on(APIRouter(), "/sub")),
    "two routers": lambda: _included(_on(APIRouter()), _on(APIRouter())),
    "mounted": lambda: _on(_with(FastAPI(), Mount("/sub", _answering(_on(FastAPI()))))),
    "mounted router": lambda: _on(_with(FastAPI(), Mount("/sub", _on(APIRouter())))),
    "plain route before": lambda: _on(_with(FastAPI(), Route("/pages/{number}", _plain, methods=["OPTIONS"]))),
    "plain route before, included": lambda: _included(
        _on(_with(APIRouter(), Route("/pages/{number}", _plain, methods=["OPTIONS"])))
    ),
    "starlette": lambda: _answering(Starlette(routes=[Mount("/", _answering(_on(FastAPI())))])),
    "router": lambda: Router([Mount("/", _answering(_on(FastAPI())))]),
    "gzip": lambda: _on(FastAPI(middleware=[Middleware(GZipMiddleware)])),
    "route class": lambda: _on(_of(_Timed)),
    "own handle": lambda: _on(_of(_Handing)),
    "layer": lambda: _on(FastAPI(middleware=[Middleware(BaseHTTPMiddleware, dispatch=_passes)])),
}


async def _passes(request: Request, call_next: Any) -> Any:
    return await call_next(request)


def _answering(app: Any, key: Any = AnyHTTPException, status: int = 200) -> Any:
    """The app with an exception handler that answers each refusal by this status."""

    async def envelope(request: Request, error: Any) -> Response:
        return JSONResponse({"code": error.status_code}, status, headers={"location": "/pages"})

    app.add_exception_handler(key, envelope)
    return app


async def _cold(app: Any, *paths: str) -> set[str]:
    return {path for path in paths if "; hit" not in (await get(app, path)).headers.get("cache-status", "")}


@pytest.mark.parametrize("name", APPS)
async def test_a_405_that_is_answered_with_200_purges_nothing_from_the_first_on(name: str) -> None:
    """Whatever the method, wherever the page stands, and though it is the first that the process is asked."""
    app = APPS[name]()
    if hasattr(app, "exception_handlers"):
        _answering(app)
    cache = HTTPCache()
    asgi = CacheMiddleware(app, cache=cache)
    paths = ["/sub/pages", "/sub/pages/7"] if name in ("included", "mounted", "mounted router") else ["/pages/7"]
    async with cache:
        await _cold(asgi, *paths)
        for target in (*paths, "/nothing", "/sub/nothing"):
            for method in METHODS:
                answer = await ask(asgi, method, target)
                assert (answer.status_code, answer.purge) == (200, None), (method, target)
        assert await _cold(asgi, *paths) == set()
        assert cache.statistics().purges == {}


@pytest.mark.parametrize("status", [200, 204, 302, 303, 307, 400])
@pytest.mark.parametrize("key", [AnyHTTPException, 405])
@pytest.mark.parametrize("method", METHODS)
async def test_an_exception_handler_by_status_or_class_is_no_handler(key: Any, method: str, status: int) -> None:
    """The page, and what the answer names as its `Location`, stay warm, at the first time and after it."""
    app = _answering(_on(FastAPI()), key, status)
    cache = HTTPCache()
    app.add_middleware(CacheMiddleware, cache=cache)
    async with cache:
        await _cold(app, "/pages/7", "/pages")
        for _ in range(2):
            answer = await ask(app, method, "/pages/7")
            assert (answer.status_code, answer.purge) == (status, None)
            assert await _cold(app, "/pages/7", "/pages") == set()


@pytest.mark.parametrize("lifespan", [False, True])
async def test_the_first_request_of_a_process_may_be_such_a_one(lifespan: bool) -> None:
    """With a lifespan and without one, before anybody has read the page."""
    app = _answering(_on(FastAPI()))
    cache = HTTPCache()
    app.add_middleware(CacheMiddleware, cache=cache)

    async def first() -> None:
        assert (await ask(app, "POST", "/pages/7")).purge is None
        assert cache.statistics().purges == {}

    if lifespan:
        async with app.router.lifespan_context(app):
            await first()
    else:
        await first()


@pytest.mark.parametrize("kind", [APIRoute, _Timed, _Handing])
async def test_the_handlers_of_the_same_page_purge_as_ever(kind: type[APIRoute]) -> None:
    """A PUT that runs purges; one that refuses, and a method that the page does not have, do not."""
    app = _answering(_on(_of(kind)))

    @app.put("/pages/{number}")
    async def write(number: int) -> None: ...

    @app.patch("/pages/{number}")
    async def refuse(number: int) -> None:
        raise HTTPException(409)

    cache = HTTPCache()
    app.add_middleware(CacheMiddleware, cache=cache)
    async with cache:
        for _ in range(2):
            await get(app, "/pages/7")
            for method in ("POST", "PATCH", "DELETE"):
                assert (await ask(app, method, "/pages/7")).purge is None
            assert await _cold(app, "/pages/7") == set()
            assert (await ask(app, "PUT", "/pages/7")).purge == "done"
            assert await _cold(app, "/pages/7") == {"/pages/7"}


@pytest.mark.parametrize("where", ["app", "mount", "cache in a mounted app"])
async def test_a_layer_that_answers_by_itself_may_have_written(where: str) -> None:
    """Its 200 to a method that the page does not have is none of the framework's: the exact target is purged."""

    async def answers(request: Request, call_next: Any) -> Response:
        return Response() if request.method == "PUT" else await call_next(request)

    layer = Middleware(BaseHTTPMiddleware, dispatch=answers)
    cache = HTTPCache()
    ours = Middleware(CacheMiddleware, cache=cache)
    if where == "app":
        app = _on(FastAPI(middleware=[ours, layer]), "/sub")
    elif where == "mount":
        app = _with(FastAPI(middleware=[ours]), Mount("/sub", _on(FastAPI()), middleware=[layer]))
    else:
        app = _with(FastAPI(), Mount("/sub", _on(FastAPI(middleware=[ours, layer]))))
    async with cache:
        for _ in range(2):
            await get(app, "/sub/pages/7")
            assert (await ask(app, "PUT", "/sub/pages/7")).purge == "done"
            assert await _cold(app, "/sub/pages/7") == {"/sub/pages/7"}


class _Takes(Route):
    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


class _TakesToo(APIRoute):
    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        await Response()(scope, receive, send)


def _put_over(route: Any) -> Any:
    async def handle(scope: Any, receive: Any, send: Any) -> None:
        await Response()(scope, receive, send)

    route.handle = handle
    return route


@pytest.mark.parametrize(
    "route",
    [
        lambda: _Takes("/pages/7", _plain, methods=["OPTIONS"]),
        lambda: _TakesToo("/pages/7", _page, methods=["OPTIONS"]),
        lambda: _put_over(Route("/pages/7", _plain, methods=["OPTIONS"])),
        lambda: _put_over(APIRoute("/pages/7", _page, methods=["OPTIONS"])),
    ],
    ids=["plain", "FastAPI's", "plain, put over", "FastAPI's, put over"],
)
async def test_a_route_that_takes_methods_it_does_not_name_counts_as_a_handler(route: Callable[[], Any]) -> None:
    """Its own `handle` answers what the framework would refuse, and may have written."""
    app = _on(_with(FastAPI(), route()))
    cache = HTTPCache()
    app.add_middleware(CacheMiddleware, cache=cache)
    async with cache:
        for _ in range(2):
            await get(app, "/pages/7")
            assert (await ask(app, "PUT", "/pages/7")).purge == "done"
            assert await _cold(app, "/pages/7") == {"/pages/7"}


@pytest.mark.parametrize("status", [200, 303])
async def test_by_headers_the_target_is_purged_each_time(status: int) -> None:
    """RFC 9111 section 4.4 goes by the status alone, from the first request to the last."""
    app = _answering(_on(FastAPI()), status=status)
    cache = HTTPCache()
    app.add_middleware(CacheMiddleware, cache=cache, honour_headers=True)
    async with cache:
        for _ in range(3):
            await get(app, "/pages/7")
            assert (await ask(app, "POST", "/pages/7")).purge == "done"
            assert await _cold(app, "/pages/7") == {"/pages/7"}
