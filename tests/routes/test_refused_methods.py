"""A method that a route does not have: the framework answers 405, and that is no other way to the route."""

# No postponed annotations: the handlers name classes and callables of their own test.

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router

from fastapi_cacheinval import CacheMiddleware, cached
from fastapi_cacheinval.routes.endpoint_calls import RouteHook
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.http import ask, scope_of

pytestmark = pytest.mark.anyio

METHODS = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY", "CONNECT", "FOO", "HEAD", "get")
SAID = "is also reached by a way that is not among the routes"


class _Handing(APIRoute):
    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        await super().handle(scope, receive, send)


class _Delegating(APIRoute):
    def get_route_handler(self) -> Callable[..., Any]:
        return super().get_route_handler()


async def _page() -> int:
    return 1


def _on(router: Any, path: str = "/page") -> Any:
    router.add_api_route(path, _page, dependencies=[cached(ttl=60)])
    return router


def _with(app: Any, *routes: Any) -> Any:
    app.routes.extend(routes)
    return app


def _of(kind: type[APIRoute]) -> FastAPI:
    app = FastAPI()
    app.router.route_class = kind
    return app


def _below(root_path: str, app: FastAPI) -> FastAPI:
    app.root_path = root_path
    return app


def _included(prefix: str, *routers: Any) -> FastAPI:
    app = FastAPI()
    for router in routers:
        app.include_router(router, prefix=prefix)
    return app


def _mounted_twice() -> Any:
    inner = _on(FastAPI())
    return _with(FastAPI(), Mount("/a", inner), Mount("/b", inner))


def _in_two_routers() -> FastAPI:
    router = _on(APIRouter())
    app = FastAPI()
    app.include_router(router, prefix="/a")
    app.include_router(router, prefix="/b")
    return app


def _beside_others() -> Any:
    """The first route of the path that refuses the method is not the cached one."""

    async def plain(request: Any) -> PlainTextResponse:
        return PlainTextResponse("plain")

    app = _with(FastAPI(), Route("/{name}", plain, methods=["PURGE"]))
    app.add_api_route("/{name}", _page, methods=["LOCK"])
    return _on(app)


def _with_a_frontend(directory: Path) -> FastAPI:
    app = _on(FastAPI())
    if hasattr(app, "frontend"):
        (directory / "index.html").write_text("<p>")
        app.frontend("/", directory=str(directory))
    return app


def _behind_a_layer() -> FastAPI:
    app = FastAPI()

    @app.middleware("http")
    async def passes(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    return _on(app)


APPS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "app": (lambda _: _on(FastAPI()), "/page"),
    "convertor": (lambda _: _on(FastAPI(), "/{number:int}/{rest:path}"), "/1/a/b"),
    "template": (lambda _: _on(FastAPI(), "/{name}"), "/page"),
    "docs": (lambda _: FastAPI(), "/docs"),
    "post": (lambda _: _with(FastAPI(), APIRoute("/page", _page, methods=["POST"])), "/page"),
    "included": (lambda _: _included("/in", _on(APIRouter(prefix="/deep"))), "/in/deep/page"),
    "included by hand": (lambda _: _with(FastAPI(), *_on(APIRouter()).routes), "/page"),
    "in two routers": (lambda _: _in_two_routers(), "/b/page"),
    "two routers of a path": (lambda _: _included("", _on(APIRouter()), _on(APIRouter())), "/page"),
    "mounted": (lambda _: _with(FastAPI(), Mount("/sub", _on(FastAPI()))), "/sub/page"),
    "mounted twice": (lambda _: _mounted_twice(), "/b/page"),
    "mounted router": (lambda _: _with(FastAPI(), Mount("/sub", _on(APIRouter()))), "/sub/page"),
    "mounted in an include": (
        lambda _: _included("/in", _with(APIRouter(), Mount("/sub", _on(FastAPI())))),
        "/in/sub/page",
    ),
    "in starlette": (lambda _: Starlette(routes=[Mount("/sub", _on(FastAPI()))]), "/sub/page"),
    "in a router": (lambda _: Router([Mount("/sub", _on(FastAPI()))]), "/sub/page"),
    "host": (lambda _: _with(FastAPI(), Host("test", _on(FastAPI()))), "/page"),
    "beside others": (lambda _: _beside_others(), "/page"),
    "root path": (lambda _: _on(_below("/root", FastAPI())), "/root/page"),
    "gzip": (lambda _: _on(FastAPI(middleware=[Middleware(GZipMiddleware)])), "/page"),
    "layer": (lambda _: _behind_a_layer(), "/page"),
    "route class": (lambda _: _on(_of(_Delegating)), "/page"),
    "own handle": (lambda _: _on(_of(_Handing)), "/page"),
    "frontend": (_with_a_frontend, "/page"),
}


@pytest.mark.parametrize("honour_headers", [False, True])
@pytest.mark.parametrize("name", APPS)
async def test_a_405_is_not_called_another_way_to_the_route(
    name: str, honour_headers: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says nothing of it, whatever the method, and wherever the route stands."""
    caplog.set_level(logging.INFO, "fastapi_cacheinval")
    build, path = APPS[name]
    app = CacheMiddleware(build(tmp_path), honour_headers=honour_headers)
    await ask(app, path)
    for method in (*METHODS, *(["GET"] if name == "post" else [])):
        for target in (path, f"{path}/", "/nothing"):
            assert (await ask(app, target, method=method)).status_code in (200, 307, 404, 405, 422)
    assert SAID not in caplog.text


@pytest.mark.parametrize("order", ["POST first", "GET first"])
async def test_a_hidden_way_is_told_of_though_a_405_came_before(order: str, caplog: pytest.LogCaptureFixture) -> None:
    """Once, by the first request that comes to the route behind a closure."""
    caplog.set_level(logging.INFO, "fastapi_cacheinval")
    inner, app = _on(FastAPI()), FastAPI()

    async def hidden(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)

    app.mount("/public", inner)
    app.mount("/partners", hidden)
    asgi = CacheMiddleware(app)
    for method in ("POST", "GET", "GET") if order == "POST first" else ("GET", "POST", "GET"):
        await ask(asgi, "/public/page", method=method)
        await ask(asgi, "/partners/page", method=method)
    assert caplog.text.count(SAID) == 1


async def test_a_405_leaves_the_route_as_it_is() -> None:
    """Its GETs are front hits as before, no hook is put into it, and replicas share what it answers."""
    app = _on(FastAPI())
    asgi = CacheMiddleware(app)
    await ask(asgi, "/page")
    table = asgi._app_context.table
    (before,) = [plan for plan in table.plans if plan.path == "/page"]
    for _ in range(2):
        assert (await ask(asgi, "/page", method="POST")).status_code == 405
    assert [plan for plan in table.plans if plan.path == "/page"] == [before]
    assert (before.known_everywhere, before.front, before.layers) == (True, True, ())
    (route,) = [route for route in app.routes if isinstance(route, APIRoute)]
    assert not isinstance(vars(route).get("handle"), RouteHook)
    assert_hit(await ask(asgi, "/page"))


@pytest.mark.parametrize("prefix", ["", "/sub"])
async def test_what_refuses_is_known_by_its_whole_template(prefix: str) -> None:
    """The plan of a route that answers 405 is that of its way: with the mounts before it, and no layer of its own."""
    app = _with(FastAPI(), Mount("/sub", _on(FastAPI()))) if prefix else _on(FastAPI())
    asgi = CacheMiddleware(app)
    await ask(asgi, f"{prefix}/page")
    table = asgi._app_context.table
    (known,) = [known for known in table.survey.known if known.analysis.plan.path == f"{prefix}/page"]
    arrived = scope_of(f"{prefix}/page", method="POST")
    assert table.plan_for({**arrived, "route": known.route}, arrived) is known.analysis.plan
    # What answers with the page after all, as an exception handler might, is not among the routes.
    by_another = table.plan_for({**arrived, "method": "GET", "route": known.route}, arrived)
    assert by_another is not None
    assert (bool(by_another.layers), by_another.known_everywhere) == (True, False)
    assert table.match("POST", f"{prefix}/page", arrived) is None
    assert not table.answers("POST", f"{prefix}/page", arrived)
