"""A hit by a guessed lifetime skips no check of the app: nothing is guessed for what its own code has answered."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response, Security
from fastapi.responses import FileResponse
from fastapi.routing import APIRoute
from fastapi.security import APIKeyQuery
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Match, Mount, Route
from starlette.staticfiles import StaticFiles

from fastapi_cacheinval import CacheMiddleware, HeaderOptions, HeaderRule, HTTPCache
from tests.helpers.http import ask

pytestmark = pytest.mark.anyio

INSIDE, OUTSIDE = ("10.0.0.1", 1), ("203.0.113.9", 1)
DEFAULTS = [True, HeaderOptions(default_ttl=60)]
RULE = HeaderOptions(rules=[("/*", 60)])
# What an injection library or a layer outside keeps of the request.
_CLIENT = ContextVar("client", default="")


def _check(client: str | None = None) -> None:
    if not (_CLIENT.get() if client is None else client).startswith("10."):
        raise HTTPException(403)


class _Refused(Exception):
    """What the app raises, and answers by a handler of its own."""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A file with a date to guess by."""
    path = tmp_path / "report"
    path.write_text("internal")
    os.utime(path, (1.6e9, 1.6e9))
    return path


async def _asked(
    app: Any, options: Any = True, path: str = "/report", *, around: bool = False, **more: Any
) -> tuple[bool, str | None, int]:
    """Whether the answer to a caller from inside is stored, and why not; and the status for one from outside then."""
    given = {"cache": HTTPCache(), "honour_headers": options, **more}
    if around or not isinstance(app, Starlette):
        app = CacheMiddleware(app, **given)
    else:
        app.add_middleware(CacheMiddleware, **given)
    _CLIENT.set(INSIDE[0])
    first = await ask(app, path, client=INSIDE)
    assert first.status_code in (200, 404)
    assert first.cache is not None
    _CLIENT.set(OUTSIDE[0])
    return first.cache.stored, first.cache.detail, (await ask(app, path, client=OUTSIDE)).status_code


def _of(endpoint: Callable[..., Any]) -> FastAPI:
    app = FastAPI()
    app.get("/report", response_model=None)(endpoint)
    return app


def _by_the_handler(page: Path) -> Any:
    def handler(request: Request) -> Response:
        _check(str(request.client and request.client.host))
        return FileResponse(page)

    return _of(handler)


def _by_what_nobody_sees(page: Path) -> Any:
    def handler() -> Response:
        _check()
        return FileResponse(page)

    return _of(handler)


def _by_the_response(page: Path) -> Any:
    class Checked(FileResponse):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if not scope["client"][0].startswith("10."):
                await Response(status_code=403)(scope, receive, send)
                return
            await super().__call__(scope, receive, send)

    return _of(lambda: Checked(page))


def _by_an_exception_handler(page: Path) -> Any:
    def handler() -> Response:
        raise _Refused

    app = _of(handler)

    @app.exception_handler(_Refused)
    def answer(request: Request, error: Exception) -> Response:
        _check()
        return FileResponse(page)

    # What an exception handler raises leaves the app.
    @app.exception_handler(500)
    def forbidden(request: Request, error: Exception) -> Response:
        return Response(status_code=403)

    return app


def _by_a_handler_of_unknown_paths(page: Path) -> Any:
    app = FastAPI()

    @app.exception_handler(404)
    def answer(request: Request, error: Exception) -> Response:
        inside = str(request.client and request.client.host).startswith("10.")
        return FileResponse(page) if inside else Response(status_code=403)

    return app


def _by_a_handler_of_missing_files(page: Path) -> Any:
    app = _by_a_handler_of_unknown_paths(page)
    (page.parent / "empty").mkdir()
    app.mount("/", StaticFiles(directory=page.parent / "empty"))
    return app


def _by_a_route_class(page: Path) -> Any:
    class Handling(APIRoute):
        def get_route_handler(self) -> Any:
            handler = super().get_route_handler()

            async def checked(request: Request) -> Response:
                _check(str(request.client and request.client.host))
                return await handler(request)

            return checked

    router = APIRouter(route_class=Handling)
    router.get("/report", response_model=None)(lambda: FileResponse(page))
    app = FastAPI()
    app.include_router(router)
    return app


def _by_a_plain_route(page: Path) -> Any:
    class Report(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            _check(str(request.client and request.client.host))
            return FileResponse(page)

    return Starlette(routes=[Route("/report", Report)])


def _by_a_mounted_app(page: Path) -> Any:
    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        _check(scope["client"][0])
        await FileResponse(page)(scope, receive, send)

    return Starlette(routes=[Mount("/report", mounted), Mount("/", mounted)])


def _by_middleware(page: Path) -> Any:
    async def checked(request: Request, answered: Any) -> Response:
        response: Response = await answered(request)
        return response if str(request.client and request.client.host).startswith("10.") else Response(status_code=403)

    app = Starlette(middleware=[Middleware(BaseHTTPMiddleware, dispatch=checked)])
    app.mount("/", StaticFiles(directory=page.parent))
    return app


def _by_a_function_around_the_app(page: Path) -> Any:
    inner = Starlette(routes=[Mount("/", StaticFiles(directory=page.parent))])

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and not scope["client"][0].startswith("10."):
            await Response(status_code=403)(scope, receive, send)
            return
        await inner(scope, receive, send)

    return outer


def _by_a_layer_of_the_mount(page: Path) -> Any:
    app = _by_a_function_around_the_app(page)
    return Starlette(routes=[Mount("/", app)])


def _by_a_subclass_of_files(page: Path) -> Any:
    class Checked(StaticFiles):
        def get_path(self, scope: Any) -> str:
            _check(scope["client"][0])
            return super().get_path(scope)

    return Starlette(routes=[Mount("/", Checked(directory=page.parent))])


def _by_a_method_put_on_files(page: Path) -> Any:
    files = StaticFiles(directory=page.parent)
    written = files.get_path

    def checked(scope: Any) -> str:
        _check(scope["client"][0])
        return written(scope)

    files.get_path = checked  # type: ignore[method-assign]
    return Starlette(routes=[Mount("/", files)])


def _by_a_class_of_mount(page: Path) -> Any:
    class Checked(Mount):
        async def handle(self, scope: Any, receive: Any, send: Any) -> None:
            _check(scope["client"][0])
            await super().handle(scope, receive, send)

    return Starlette(routes=[Checked("/", StaticFiles(directory=page.parent))])


def _by_a_route_that_comes_before(page: Path) -> Any:
    class Refusing(Route):
        def matches(self, scope: Any) -> Any:
            return (Match.NONE, {}) if scope["client"][0].startswith("10.") else super().matches(scope)

    refused = Refusing("/report", lambda request: Response(status_code=403))
    return Starlette(routes=[refused, Mount("/", StaticFiles(directory=page.parent))])


def _by_another_way_to_the_files(page: Path) -> Any:
    files = Mount("/", StaticFiles(directory=page.parent))
    inner = Starlette(routes=[files])

    async def way(scope: Any, receive: Any, send: Any) -> None:
        _check(scope["client"][0])
        await inner(scope, receive, send)

    return Starlette(routes=[Mount("/plain", inner), Mount("/", way)])


APPS = {name.removeprefix("_by_"): made for name, made in list(globals().items()) if name.startswith("_by_")}


@pytest.mark.parametrize("made", APPS.values(), ids=APPS)
@pytest.mark.parametrize("options", DEFAULTS, ids=["heuristic", "default_ttl"])
@pytest.mark.parametrize("around", [False, True], ids=["inside", "around"])
async def test_a_hit_by_guess_skips_no_check(
    page: Path, made: Callable[[Path], Any], options: Any, around: bool
) -> None:
    """Wherever the app has it, and the cache the app; each caller gets what the app without a cache answers."""
    stored, detail, status = await _asked(made(page), options, around=around)
    assert (stored, status) == (False, 403)
    assert detail in ("no-lifetime", "caller-dependent")


@pytest.mark.parametrize("what", ["app", "handle", "matches", "get_path"])
async def test_a_check_that_is_put_there_after_the_start_is_not_skipped(page: Path, what: str) -> None:
    """On the mount or on the files, once requests have been answered."""
    files = StaticFiles(directory=page.parent)
    mount = Mount("/", files)
    app = CacheMiddleware(Starlette(routes=[mount]), cache=HTTPCache(), honour_headers=True)
    assert (await ask(app, "/other", client=INSIDE)).status_code == 404
    changed: Any = files if what == "get_path" else mount
    written = getattr(changed, what)

    def checked(scope: Any, *others: Any) -> Any:
        _check(scope["client"][0])
        return written(scope, *others)

    async def answered(*given: Any) -> None:
        await checked(*given)

    setattr(changed, what, answered if what in ("app", "handle") else checked)
    first = await ask(app, "/report", client=INSIDE)
    assert first.cache is not None
    assert (first.status_code, first.cache.detail) == (200, "no-lifetime")
    assert (await ask(app, "/report", client=OUTSIDE)).status_code == 403


@pytest.mark.parametrize("options", DEFAULTS, ids=["heuristic", "default_ttl"])
async def test_nothing_is_guessed_for_a_handler_that_asks_nobody(page: Path, options: Any) -> None:
    """No code shows that it checks nothing; the detail says what is lacking, and a lifetime or `public` gives it."""
    assert await _asked(_of(lambda: FileResponse(page)), options) == (False, "no-lifetime", 200)
    for control in ("max-age=60", "public"):
        app = _of(lambda control=control: FileResponse(page, headers={"cache-control": control}))
        assert (await _asked(app, options))[0]


def _mounted(page: Path) -> FastAPI:
    app = FastAPI()
    app.mount("/static", StaticFiles(directory=page.parent))
    return app


def _mounted_in_an_app(page: Path) -> Starlette:
    return Starlette(routes=[Mount("/", _mounted(page), middleware=[Middleware(GZipMiddleware)])])


def _behind_a_handler_of_missing_files(page: Path) -> FastAPI:
    app = _by_a_handler_of_unknown_paths(page)
    app.mount("/static", StaticFiles(directory=page.parent))
    return app


@pytest.mark.parametrize("made", [_mounted, _mounted_in_an_app, _behind_a_handler_of_missing_files])
@pytest.mark.parametrize("options", DEFAULTS, ids=["heuristic", "default_ttl"])
async def test_files_that_are_mounted_are_kept_by_guess(page: Path, made: Any, options: Any) -> None:
    """`StaticFiles` as Starlette wrote it asks nobody who is calling, and nor does what stands before it here."""
    assert await _asked(made(page), options, "/static/report") == (True, None, 200)


async def test_files_behind_middleware_are_kept_where_its_author_says_so(page: Path) -> None:
    """`front=True` is the author's word that hits may skip what stands inside."""

    async def adds(request: Request, answered: Any) -> Response:
        response: Response = await answered(request)
        return response

    for word, expected in ((None, (False, "no-lifetime", 200)), (True, (True, None, 200))):
        app = Starlette(middleware=[Middleware(BaseHTTPMiddleware, dispatch=adds)])
        app.mount("/static", StaticFiles(directory=page.parent))
        assert await _asked(app, True, "/static/report", front=word) == expected


@pytest.mark.parametrize("alone", [True, False])
async def test_nothing_is_guessed_for_a_route_that_is_the_app(page: Path, alone: bool) -> None:
    """Nor for an endpoint: no router says that there are routes."""

    class Report(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            from_inside = str(request.client and request.client.host).startswith("10.")
            return FileResponse(page) if from_inside else Response(status_code=403)

    assert await _asked(Report if alone else Route("/report", Report)) == (False, "no-lifetime", 403)


async def test_an_app_of_another_kind_is_kept_by_guess(page: Path) -> None:
    """Nobody can see its routes."""
    assert await _asked(FileResponse(page)) == (True, None, 200)


async def test_a_rule_holds_for_what_code_answers(page: Path) -> None:
    """It names paths: the operator's word stands in for the app's."""
    assert await _asked(_by_what_nobody_sees(page), RULE) == (True, None, 200)
    assert await _asked(_by_a_plain_route(page), RULE) == (True, None, 200)


@pytest.mark.parametrize("override", [False, True])
async def test_a_rule_does_not_hold_against_what_a_route_declares(page: Path, override: bool) -> None:
    """A handler or a dependency that takes what tells callers apart, a guard of FastAPI's included, is asked."""
    rule = HeaderOptions(rules=[("/*", HeaderRule(60, override=override))])
    assert await _asked(_by_the_handler(page), rule) == (False, "caller-dependent", 403)

    def by_key(key: Annotated[str | None, Security(APIKeyQuery(name="key", auto_error=False))]) -> None:
        _check()

    app = FastAPI(dependencies=[Depends(by_key)])
    app.get("/report", response_model=None)(lambda: FileResponse(page))
    assert await _asked(app, rule) == (False, "caller-dependent", 403)
    private = FastAPI(dependencies=[Depends(by_key)])
    private.get("/report")(lambda: Response(headers={"cache-control": "private"}))
    assert await _asked(private, rule) == (False, "private", 403)
