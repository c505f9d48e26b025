"""Apps that answer one page by their headers, with no check, or with one that lets some callers in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request, Response, Security
from fastapi.responses import FileResponse
from fastapi.security import APIKeyHeader
from starlette.applications import Starlette
from starlette.exceptions import HTTPException as Refused
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from fastapi_cacheinval import CacheMiddleware, HeaderOptions, HeaderRule, HTTPCache, cached
from tests.helpers.http import Answer, ask

Make = Callable[[HTTPCache], Any]
# A header that the cache does not know for a credential: it says nothing of the caller in a request without it.
KEY = {"x-plan": "gold"}
RULED = HeaderOptions(rules=[("/in/*", 300)])
OVERRIDDEN = HeaderOptions(rules=[("/in/*", HeaderRule(300, override=True))])
DEFAULT = HeaderOptions(default_ttl=300)


def user(x_plan: Annotated[str, Header()] = "") -> None:
    """Let callers with the right plan in."""
    if x_plan != "gold":
        raise HTTPException(403)


class Guarded:
    """An ASGI app that lets the same callers in to another."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        app = self.app if dict(scope["headers"]).get(b"x-plan") == b"gold" else PlainTextResponse("no", 403)
        await app(scope, receive, send)


class GuardedFiles(StaticFiles):
    """Files for the same callers."""

    async def get_response(self, path: str, scope: Any) -> Response:
        if dict(scope["headers"]).get(b"x-plan") != b"gold":
            raise Refused(403)
        return await super().get_response(path, scope)


class GuardedMount(Mount):
    """A mount for the same callers."""

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        await Guarded(super().handle)(scope, receive, send)


def release(build: Callable[[FastAPI], None], options: Any, **more: Any) -> Make:
    """A release that answers by headers."""

    def make(cache: HTTPCache) -> Any:
        app = FastAPI(**more)
        build(app)
        app.add_middleware(CacheMiddleware, cache=cache, honour_headers=options)
        return app

    return make


def route(folder: Path, *checks: Any, **said: str) -> Callable[[FastAPI], None]:
    """A FastAPI route that answers with the file, behind these checks."""

    def build(app: FastAPI) -> None:
        @app.get("/in/{name}", dependencies=[*checks])
        def page(name: str) -> Response:
            return FileResponse(folder / name, headers=said)

    return build


def mounted(app: Any) -> Callable[[FastAPI], None]:
    return lambda outer: outer.mount("/in", app)


def plain(folder: Path) -> Callable[[FastAPI], None]:
    return mounted(StaticFiles(directory=folder))


def sub_app(folder: Path, **more: Any) -> FastAPI:
    inner = FastAPI(**more)

    @inner.get("/{name}")
    def page(name: str) -> Response:
        return FileResponse(folder / name)

    return inner


def included(folder: Path) -> Callable[[FastAPI], None]:
    router = APIRouter()
    router.add_api_route("/in/{name}", lambda name: FileResponse(folder / name), response_class=Response)
    return lambda app: app.include_router(router, dependencies=[Depends(user)])


def by_request(folder: Path) -> Callable[[FastAPI], None]:
    def build(app: FastAPI) -> None:
        @app.get("/in/{name}")
        def page(name: str, request: Request) -> Response:
            user(request.headers.get("x-plan", ""))
            return FileResponse(folder / name)

    return build


def in_a_closure(folder: Path) -> Callable[[FastAPI], None]:
    """A mount of an app that nobody sees in it, and that asks who is calling."""
    inner = sub_app(folder, dependencies=[Depends(user)])

    async def hidden(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)

    return mounted(hidden)


def guarded_frontend(folder: Path) -> Callable[[FastAPI], None]:
    def build(app: FastAPI) -> None:
        router = APIRouter(dependencies=[Depends(user)])
        frontend: Any = getattr(router, "frontend", None)
        if frontend is None:
            router.get("/in/{name}")(lambda name: FileResponse(folder / name))
        else:
            frontend("/in", directory=folder)
        app.include_router(router)

    return build


def overridden(folder: Path) -> Callable[[FastAPI], None]:
    def nobody() -> None:
        """Whoever calls."""

    def build(app: FastAPI) -> None:
        route(folder, Depends(nobody))(app)
        app.dependency_overrides[nobody] = user

    return build


def by_handler(folder: Path) -> Callable[[FastAPI], None]:
    """An exception handler answers, for some callers."""

    def build(app: FastAPI) -> None:
        @app.exception_handler(LookupError)
        def answer(request: Request, error: Exception) -> Response:
            user_is_known = request.headers.get("x-plan") == "gold"
            return FileResponse(folder / "page") if user_is_known else Response(status_code=403)

        @app.get("/in/{name}")
        def page(name: str) -> Response:
            raise LookupError

    return build


def by_starlette(folder: Path) -> Callable[[FastAPI], None]:
    def page(request: Request) -> Response:
        allowed = request.headers.get("x-plan") == "gold"
        return FileResponse(folder / "page") if allowed else Response(status_code=403)

    return lambda app: app.router.routes.append(Route("/in/page", page))


CHECKS: dict[str, Callable[[Path], Callable[[FastAPI], None]]] = {
    "dependency": lambda folder: route(folder, Depends(user)),
    "security": lambda folder: route(folder, Security(APIKeyHeader(name="x-plan")), Depends(user)),
    "include": included,
    "request": by_request,
    "sub-app": lambda folder: mounted(sub_app(folder, dependencies=[Depends(user)])),
    "wrapped sub-app": lambda folder: mounted(Guarded(sub_app(folder, dependencies=[Depends(user)]))),
    "hidden sub-app": in_a_closure,
    "frontend": guarded_frontend,
    "override": overridden,
    "cached": lambda folder: route(folder, Depends(user), cached(ttl=60, guarded_by=[user])),
}
# What code checks by itself: a rule is the operator's word that it skips that, a guess is nobody's.
OWN_CODE: dict[str, Callable[[Path], Callable[[FastAPI], None]]] = {
    "subclass": lambda folder: mounted(GuardedFiles(directory=folder)),
    "wrapped": lambda folder: mounted(Guarded(StaticFiles(directory=folder))),
    "mount": lambda folder: lambda app: app.router.routes.append(GuardedMount("/in", StaticFiles(directory=folder))),
    "exception handler": by_handler,
    "Starlette's route": by_starlette,
    "Starlette": lambda folder: mounted(Starlette(routes=[Mount("/", Guarded(StaticFiles(directory=folder)))])),
}


async def get(app: Any, path: str = "/in/page", **more: Any) -> Answer:
    return await ask(app, path, host="shop.test", **more)
