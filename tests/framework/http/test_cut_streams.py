"""A body that its route has not ended is kept by nobody, whatever a layer on the way out makes of it.

Starlette's streams swallow a cancellation: the route returns without an error and without the last of its body.
"""

# No postponed annotations: the handlers name classes of their own test.

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute, _EffectiveRouteContext  # pyright: ignore[reportPrivateUsage]
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount, Route

from fastapi_cacheinval import CacheMiddleware, HTTPCache
from fastapi_cacheinval.routes.middleware_stack import middleware_stack_of
from fastapi_cacheinval.routes.table import RouteTable
from tests.helpers.cut import FRESH, MODES, HandsOn, Report, in_app, only_the_whole_is_kept, routed

pytestmark = pytest.mark.anyio


class Collects(BaseHTTPMiddleware):
    """Answers with what has come, and with the length of that."""

    async def dispatch(self, request: Request, call_next: Any) -> Any:
        """Collect."""
        answer = await call_next(request)
        return Response(b"".join([part async for part in answer.body_iterator]), headers=FRESH)


class Relays:
    """Has the app in a task of its own, and ends what that leaves open."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        messages: asyncio.Queue[Any] = asyncio.Queue()
        inside = asyncio.create_task(self.app(scope, receive, messages.put))
        inside.add_done_callback(lambda _: messages.put_nowait(None))
        last: Any = {"more_body": True}
        while (message := await messages.get()) is not None:
            last = message
            await send(message)
        if last.get("more_body"):
            await send({"type": "http.response.body", "body": b""})
        await inside


class Layered(APIRoute):
    """A route class that puts a layer around its app."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.app = HandsOn(self.app)


class OwnWay(APIRoute):
    """A route class that puts a layer around its way to the app."""

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        """Hand on through it."""
        await HandsOn(super().handle)(scope, receive, send)


LAYERS: dict[str, list[Any]] = {
    "one": [HandsOn],
    "two": [HandsOn, HandsOn],
    "collecting": [Collects],
    "relaying": [Relays],
    "gzip inside": [HandsOn, GZipMiddleware],
    "gzip outside": [GZipMiddleware, HandsOn],
}


def in_mount(report: Report, mode: str, layers: list[Any]) -> tuple[Any, str]:
    """Layers of a mounted application."""
    app, (inner, path) = FastAPI(), in_app(report, mode, layers)
    app.mount("/m", inner)
    return app, f"/m{path}"


def in_router(report: Report, mode: str, layers: list[Any]) -> tuple[Any, str]:
    """Layers around a router."""
    app, router = FastAPI(), routed(report, mode)
    app.router.routes.append(Mount("/m", routes=router.routes, middleware=[Middleware(layer) for layer in layers]))
    return app, "/m/report"


def around(report: Report, mode: str, layers: list[Any]) -> tuple[Any, str]:
    """Layers around the application."""
    app, path = in_app(report, mode, [])
    for layer in layers:
        app = layer(app)
    return app, path


PLACES = [in_app, in_mount, in_router, around]


@pytest.mark.parametrize("rows", [0, 2, 3])
@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("mode", MODES)
async def test_what_a_layer_ends_after_a_cancellation_is_not_kept(
    mode: str, place: Callable[..., tuple[Any, str]], layers: list[Any], rows: int
) -> None:
    """Wherever the layer stands, and however much of the body had come."""
    report = Report(rows)
    app, path = place(report, mode, layers)
    asgi = CacheMiddleware(app, HTTPCache(), honour_headers=mode == "by headers")
    await only_the_whole_is_kept(asgi, path, report, headers={"accept-encoding": "gzip"})


# An older FastAPI makes the app of an included route anew for each request, so that nothing can stand before it.
INCLUDED = [True] if hasattr(_EffectiveRouteContext, "app") else []


@pytest.mark.parametrize(
    ("route_class", "included"),
    [(Layered, False), (Layered, True), (OwnWay, False), *((OwnWay, included) for included in INCLUDED)],
)
@pytest.mark.parametrize("mode", MODES)
async def test_a_layer_that_a_route_class_brings_along_keeps_nothing_cut(
    mode: str, route_class: Any, *, included: bool
) -> None:
    """It stands behind the place at which a request comes to its route."""
    report, app = Report(), FastAPI()
    router = routed(report, mode, route_class=route_class)
    if included:
        app.include_router(router)
    else:
        app.router.routes += router.routes
    await only_the_whole_is_kept(CacheMiddleware(app, honour_headers=mode == "by headers"), "/report", report)


@pytest.mark.parametrize("layered", [[Middleware(HandsOn)], []])
@pytest.mark.parametrize("kind", ["plain", "asgi", "wrapped"])
async def test_a_plain_route_with_layers_of_its_own_keeps_nothing_cut(kind: str, layered: Any) -> None:
    """A function, an app as an endpoint, and an app in a layer as one, in an app of Starlette's."""
    report = Report()

    class Endpoint:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await report.asgi(scope, receive, send)

    endpoint = report.plain if kind == "plain" else Endpoint() if kind == "asgi" else HandsOn(Endpoint())
    app = Starlette(routes=[Route("/report", endpoint, methods=["GET"], middleware=layered)])
    outside = [] if layered else [HandsOn]
    for layer in outside:
        app = layer(app)  # type: ignore[assignment]
    await only_the_whole_is_kept(CacheMiddleware(app, honour_headers=True), "/report", report)


async def test_an_app_of_another_kind_that_returns_in_the_middle_is_kept_by_nobody() -> None:
    """It is mounted behind a layer, and has no routes that could be seen."""
    report, app = Report(), FastAPI(middleware=[Middleware(HandsOn)])
    app.mount("/m", report.asgi)
    await only_the_whole_is_kept(CacheMiddleware(app, honour_headers=True), "/m/x", report)


@pytest.mark.parametrize("mode", MODES)
async def test_a_route_that_nobody_knows_the_way_to_keeps_nothing_cut(mode: str) -> None:
    """The app is kept in a closure, so that its routes are found when they are first asked."""
    report = Report()
    inner, path = in_app(report, mode, [HandsOn])

    async def hidden(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)

    asgi = CacheMiddleware(hidden, HTTPCache(), honour_headers=mode == "by headers")
    await only_the_whole_is_kept(asgi, path, report)


@pytest.mark.parametrize("route_class", [Layered, OwnWay])
def test_a_route_that_is_hooked_beneath_its_layers_is_the_same_route(route_class: Any) -> None:
    """Its plan, which names what is stored, is as it was before the hook."""
    app = FastAPI()
    app.router.routes += routed(Report(), "shared", route_class=route_class).routes
    first, again = (RouteTable(app, middleware_stack_of(app)).plans for _ in range(2))
    assert first[-1].around
    assert first == again
