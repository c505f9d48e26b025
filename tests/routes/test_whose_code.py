"""What is the framework's own is decided by its code: names that `functools.wraps` copies prove nothing."""

# No postponed annotations: the handlers name classes and callables of their own test.

import functools
import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Annotated, Any

import fastapi.routing
import pytest
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.requests import HTTPConnection
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from fastapi.routing import APIRoute, request_response
from fastapi.security import APIKeyQuery
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from fastapi_cacheinval import CacheMiddleware, CallerDependentRoute, HTTPCache, cached
from fastapi_cacheinval.routes.middleware_stack import middleware_stack_of
from fastapi_cacheinval.routes.table import RouteTable
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.http import Shop, ask

pytestmark = pytest.mark.anyio


def by(who: str) -> dict[str, str]:
    return {"x-user": who}


def who(scope: Any) -> str:
    return dict(scope["headers"]).get(b"x-user", b"").decode()


def audit(app: FastAPI) -> RouteTable:
    inside = middleware_stack_of(app)
    table = RouteTable(inside.app, inside)
    table.audit()
    return table


def around(app: FastAPI) -> str:
    """What the cache works behind at the route of an app."""
    inside = middleware_stack_of(app)
    (plan,) = [each for each in RouteTable(inside.app, inside).plans if each.policy is not None]
    return ", ".join(plan.around)


# -- exception handlers -------------------------------------------------------------------------


@functools.wraps(http_exception_handler)
async def wrapped_handler(request: Request, error: Any) -> Response:
    return JSONResponse({"detail": who(request.scope)}, status_code=404)


class CallableHandler:
    def __init__(self) -> None:
        functools.update_wrapper(self, http_exception_handler)

    async def __call__(self, request: Request, error: Any) -> Response:
        return await wrapped_handler(request, error)


async def _partial_handler(more: str, request: Request, error: Any) -> Response:
    return await wrapped_handler(request, error)


def _named_like() -> Any:
    async def http_exception_handler(request: Request, error: Any) -> Response:
        return await wrapped_handler(request, error)

    http_exception_handler.__module__ = "fastapi.exception_handlers"
    http_exception_handler.__qualname__ = "http_exception_handler"
    return http_exception_handler


HANDLERS: dict[str, Any] = {
    "wraps": wrapped_handler,
    "object": CallableHandler(),
    "partial": functools.update_wrapper(functools.partial(_partial_handler, "x"), http_exception_handler),
    "renamed": _named_like(),
}


@pytest.mark.parametrize("handler", HANDLERS)
async def test_an_exception_handler_of_the_app_is_not_the_frameworks_by_name(handler: str) -> None:
    """What it answers is its caller's alone, however it is dressed up."""
    shop = Shop()
    shop.app.exception_handlers[StarletteHTTPException] = HANDLERS[handler]
    shop.app.exception_handlers[HTTPException] = HANDLERS[handler]

    @shop.app.get("/it", dependencies=[cached(ttl=60, statuses={200, 404})])
    async def it() -> None:
        raise HTTPException(404)

    for name in ("alice", "bob"):
        answer = await shop.ask("/it", headers=by(name))
        assert answer.body == b'{"detail":"%b"}' % name.encode()
        assert answer.cache is not None
        assert answer.cache.detail == "exception-handler"


async def test_the_frameworks_own_handler_is_known_wherever_it_is_registered() -> None:
    """As FastAPI registers it, and by hand for a status: a 404 that the policy lists is stored."""
    shop = Shop()
    shop.app.exception_handlers[404] = http_exception_handler

    @shop.app.get("/it", dependencies=[cached(ttl=60, statuses={200, 404})])
    async def it() -> None:
        shop.count()
        raise HTTPException(404)

    for _ in range(2):
        answer = await shop.ask("/it")
    assert_hit(answer)
    assert shop.calls == 1


# -- response classes ---------------------------------------------------------------------------


def _calls(kind: Any) -> Any:
    """A `__call__` that signs what the stock one of a class would send."""

    @functools.wraps(kind.__call__)
    async def call(self: Any, scope: Any, receive: Any, send: Any) -> None:
        self.headers["x-signed"] = who(scope)
        await kind.__call__(self, scope, receive, send)

    return call


class Wrapping(JSONResponse):
    __call__ = _calls(JSONResponse)


class Inheriting(Wrapping):
    pass


class Disguised(PlainTextResponse):
    __call__ = _calls(PlainTextResponse)
    __module__ = "starlette.responses"


class ByObject(JSONResponse):
    class _Call:
        def __get__(self, instance: Any, owner: Any = None) -> Any:
            return functools.partial(_calls(JSONResponse), instance)

    __call__ = _Call()  # pyright: ignore[reportAssignmentType]


@pytest.mark.parametrize("kind", [Wrapping, Inheriting, Disguised, ByObject])
@pytest.mark.parametrize("how", ["returned", "response_class"])
async def test_a_response_class_that_is_given_the_request_is_not_shared(kind: Any, how: str) -> None:
    """Its `__call__` may write each caller's name, whatever it says that it is."""
    shop = Shop()
    options: dict[str, Any] = {"response_class": kind} if how == "response_class" else {}

    @shop.app.get("/it", dependencies=[cached(ttl=60)], response_model=None, **options)
    async def it() -> Any:
        return "page" if how == "response_class" else kind("page")

    for name in ("alice", "bob"):
        answer = await shop.ask("/it", headers=by(name))
        assert answer.headers["x-signed"] == name
        assert answer.cache is not None
        assert answer.cache.detail == "own-response"


async def test_a_patched_class_of_the_framework_is_not_the_frameworks(monkeypatch: pytest.MonkeyPatch) -> None:
    """`JSONResponse.__call__` replaced for all, before the request and after the start."""
    shop = Shop()

    @shop.app.get("/it", dependencies=[cached(ttl=60)])
    async def it() -> JSONResponse:
        return JSONResponse("page")

    assert (await shop.ask("/other")).status_code == 404
    monkeypatch.setattr(JSONResponse, "__call__", _calls(Response))
    for name in ("alice", "bob"):
        answer = await shop.ask("/it", headers=by(name))
        assert answer.headers["x-signed"] == name


async def test_the_frameworks_response_classes_are_known(tmp_path: Any) -> None:
    """Each of them is stored, also a subclass that changes what is not given the request."""
    (tmp_path / "file").write_text("page")

    class Upper(PlainTextResponse):
        def render(self, content: Any) -> bytes:
            return bytes(super().render(content)).upper()

    made: dict[str, Callable[[], Response]] = {
        "/json": lambda: JSONResponse("page"),
        "/text": lambda: PlainTextResponse("page"),
        "/html": lambda: HTMLResponse("page"),
        "/file": lambda: FileResponse(tmp_path / "file"),
        "/stream": lambda: StreamingResponse(iter(["page"])),
        "/upper": lambda: Upper("page"),
    }
    shop = Shop()
    for path, make in made.items():
        shop.app.get(path, dependencies=[cached(ttl=60)], response_model=None)(make)
    for path in made:
        for _ in range(2):
            answer = await shop.ask(path)
        assert_hit(answer)


# -- the route's own app ------------------------------------------------------------------------


def page_app() -> tuple[FastAPI, Any]:
    app = FastAPI()
    app.get("/it", dependencies=[cached(ttl=60)])(lambda: "page")
    return app, app.routes[-1]


def wrap_app(route: Any) -> None:
    inner = route.app

    @functools.wraps(inner)
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)

    route.app = app


def wrap_with_object(route: Any) -> None:
    class App:
        def __init__(self, app: Any) -> None:
            self.app = app
            functools.update_wrapper(self, app)

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(scope, receive, send)

    route.app = App(route.app)


def wrap_with_partial(route: Any) -> None:
    async def app(inner: Any, scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)

    route.app = functools.update_wrapper(functools.partial(app, route.app), route.app)


def wrap_handler(route: Any) -> None:
    """The framework's function around a handler of the author's."""
    handler = route.get_route_handler()

    @functools.wraps(handler)
    async def app(request: Request) -> Response:
        response = await handler(request)
        response.headers["x-signed"] = who(request.scope)
        return response

    route.app = request_response(app)


def other_dependant(route: Any) -> None:
    """What answers is not what the route says of itself."""

    def signed(x_user: Annotated[str, Header()] = "") -> str:
        return x_user

    def handler(user: Annotated[str, Depends(signed)]) -> str:
        return user

    other = APIRoute("/it", handler, dependencies=route.dependencies)
    route.app = other.app


@pytest.mark.parametrize("wrap", [wrap_app, wrap_with_partial, other_dependant])
def test_what_hides_a_routes_handler_is_not_the_frameworks_by_name(wrap: Any) -> None:
    """The app does not start: it is handed the raw request, and no cache can work behind it."""
    app, route = page_app()
    wrap(route)
    with pytest.raises(CallerDependentRoute, match=r"around its app|in place of its handler|another dependant"):
        audit(app)


@pytest.mark.parametrize("wrap", [wrap_with_object, wrap_handler])
def test_what_stands_around_a_routes_handler_is_not_the_frameworks_by_name(wrap: Any) -> None:
    """The cache works behind it, as behind a middleware that is not known."""
    app, route = page_app()
    wrap(route)
    audit(app)
    assert re.search(r"around its app|in place of its handler", around(app))


@pytest.mark.parametrize("name", ["handle", "get_route_handler"])
def test_a_method_patched_on_the_frameworks_route_class_counts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For all routes at once, under the stock name."""
    stock: Any = getattr(APIRoute, name)

    @functools.wraps(stock)
    def patched(*args: Any) -> Any:
        return stock(*args)

    app, _ = page_app()
    monkeypatch.setattr(APIRoute, name, patched)
    audit(app)
    assert name in around(app)


# -- layers -------------------------------------------------------------------------------------


def wrapping(kind: Any) -> Any:
    """A middleware that wraps another class and says that it is that one."""

    @functools.wraps(kind, updated=())
    class Wrapper:
        def __init__(self, app: Any, **options: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(scope, receive, send)

    return Wrapper


def as_function(kind: Any) -> Any:
    @functools.wraps(kind)
    def make(app: Any) -> Any:
        async def call(scope: Any, receive: Any, send: Any) -> None:
            await app(scope, receive, send)

        return functools.update_wrapper(call, kind)

    return make


def subclass(kind: Any) -> Any:
    return type(kind.__name__, (kind,), {"__module__": kind.__module__, "__qualname__": kind.__qualname__})


@pytest.mark.parametrize("kind", [GZipMiddleware, CORSMiddleware, CacheMiddleware])
@pytest.mark.parametrize("dress", [wrapping, as_function, subclass])
def test_a_middleware_is_not_harmless_by_name(kind: Any, dress: Any) -> None:
    """Neither declared nor around an app, under the name of one that is."""
    app = FastAPI()
    app.add_middleware(dress(kind))
    assert not middleware_stack_of(app).harmless
    assert not middleware_stack_of(dress(kind)(FastAPI())).harmless


def test_a_harmless_middleware_that_is_patched_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The class is the framework's, what it does is not."""
    app = FastAPI()
    app.add_middleware(GZipMiddleware)
    assert middleware_stack_of(app).harmless
    stock: Any = GZipMiddleware.__call__

    @functools.wraps(stock)
    async def call(self: Any, scope: Any, receive: Any, send: Any) -> None:
        await stock(self, scope, receive, send)

    monkeypatch.setattr(GZipMiddleware, "__call__", call)
    assert not middleware_stack_of(app).harmless


def test_a_method_that_is_replaced_on_a_middleware_itself_counts() -> None:
    """The class is as it was, this one is not; found around an app, in a built stack and around a route's app."""
    app = FastAPI()
    app.add_middleware(GZipMiddleware)
    app.middleware_stack = app.build_middleware_stack()
    assert middleware_stack_of(app).harmless
    layer: Any = app.middleware_stack
    while type(layer) is not GZipMiddleware:
        layer = layer.app
    layer.__dict__["__call__"] = lambda: None
    assert "GZipMiddleware with its own __call__()" in (middleware_stack_of(app).reason or "")
    cors = CORSMiddleware(FastAPI())
    assert middleware_stack_of(cors).harmless
    cors.__dict__["simple_response"] = lambda: None
    assert "CORSMiddleware with its own simple_response()" in (middleware_stack_of(cors).reason or "")
    app, route = page_app()
    route.app = GZipMiddleware(route.app)
    audit(app)
    assert around(app) == ""
    route.app.__dict__["__call__"] = lambda: None
    assert "GZipMiddleware with its own __call__() around its app" in around(app)


@pytest.mark.parametrize("name", ["__call__", "build_middleware_stack"])
def test_an_application_class_that_is_patched_is_a_layer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As some instrumentation does it."""
    stock: Any = getattr(FastAPI, name)

    @functools.wraps(stock)
    def patched(*args: Any) -> Any:
        return stock(*args)

    monkeypatch.setattr(FastAPI, name, patched)
    assert name in (middleware_stack_of(FastAPI()).reason or "")


# -- security schemes ---------------------------------------------------------------------------


class KeyAndMore(APIKeyQuery):
    """Reads another parameter than it says."""

    async def __call__(self, request: HTTPConnection) -> str | None:
        return request.query_params.get("secret")


KeyAndMore.__module__ = "fastapi.security.api_key"


async def test_a_scheme_is_not_the_frameworks_by_name() -> None:
    """One of the app's own may read the whole query, so all of it is in the key."""
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    scheme = KeyAndMore(name="key")

    @app.get("/it", dependencies=[cached(ttl=60, shared=True)])
    async def it(secret: Annotated[str | None, Depends(scheme)]) -> str | None:
        return secret

    for secret in ("one", "two"):
        assert (await ask(app, f"/it?key=1&secret={secret}")).body == f'"{secret}"'.encode()


# -- what only observes -------------------------------------------------------------------------

OBSERVER = """
def observed(old_call):
    async def call(self, scope, receive, send):
        await old_call(self, scope, receive, send)
    return call

def observed_maker(old_maker):
    def maker(*args, **options):
        old_app = old_maker(*args, **options)
        async def app(request):
            return await old_app(request)
        return app
    return maker
"""


async def test_an_observers_wrapper_counts_as_what_it_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Sentry patches the framework: routes start, the front lookup is on, and a wrapper of the app's below it counts."""
    module = ModuleType("sentry_sdk.integrations.imitated")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(OBSERVER, vars(module))
    stock: Any = GZipMiddleware.__call__
    monkeypatch.setattr(GZipMiddleware, "__call__", module.observed(stock))
    monkeypatch.setattr(
        "fastapi.routing.get_request_handler", module.observed_maker(fastapi.routing.get_request_handler)
    )
    shop = Shop()
    shop.inside(GZipMiddleware)
    shop.app.get("/it", dependencies=[cached(ttl=60)])(shop.count)
    for _ in range(3):
        answer = await shop.ask("/it")
    assert_hit(answer)
    assert middleware_stack_of(shop.app).layers == ()

    @functools.wraps(stock)
    async def mine(self: Any, scope: Any, receive: Any, send: Any) -> None:
        await stock(self, scope, receive, send)

    monkeypatch.setattr(GZipMiddleware, "__call__", module.observed(mine))
    assert not middleware_stack_of(shop.app).harmless


def test_a_wrapper_is_named_by_where_it_was_written() -> None:
    """`functools.wraps` gives a wrapper around a route's own app the name of what it wraps."""
    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60)])(lambda: "it")
    route: Any = app.routes[-1]
    inner = route.app

    @functools.wraps(inner)
    async def stranger(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)

    route.app = stranger
    [plan] = RouteTable(app, middleware_stack_of(app)).plans
    assert any("stranger" in each for each in (*plan.uncovered, *plan.around))
