"""What stands between the middleware and the router, on real application stacks."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.testclient import TestClient

from fastapi_cacheinval import CacheMiddleware, HTTPCache
from fastapi_cacheinval.routes.middleware_stack import middleware_stack_of

HARMLESS = [GZipMiddleware, CORSMiddleware, TrustedHostMiddleware, HTTPSRedirectMiddleware]


class Here:
    """Stands where our middleware would, and keeps what it wraps."""

    wrapped: Any = None

    def __init__(self, app: Any) -> None:
        Here.wrapped = app
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


class Hiding:
    """Keeps what it wraps under another name."""

    def __init__(self, app: Any) -> None:
        self.inner = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.inner(scope, receive, send)


class Pass(BaseHTTPMiddleware):
    async def dispatch(self, request: Any, call_next: Any) -> Any:
        return await call_next(request)


def stack(app: Any, *inside: Any) -> Any:
    """What add_middleware hands to the outermost middleware, with these inside it."""
    for middleware in reversed(inside):
        app.add_middleware(middleware)
    app.add_middleware(Here)
    TestClient(app, base_url="http://localhost").get("/nothing")
    return Here.wrapped


@pytest.mark.parametrize("kind", [FastAPI, Starlette])
def test_a_bare_app_is_harmless(kind) -> None:
    """The frameworks' own middleware counts as nothing, from inside the stack and around the app."""
    for inside in (middleware_stack_of(stack(kind())), middleware_stack_of(kind())):
        assert inside.harmless
        assert inside.reason is None
        assert not inside.cors


def test_the_app_is_found_behind_its_router() -> None:
    """From inside the stack FastAPI's router leads to the app, and Starlette's stands for it."""
    app = FastAPI()
    assert middleware_stack_of(stack(app)).app is app
    plain = Starlette()
    assert middleware_stack_of(stack(plain)).app is plain.router
    assert middleware_stack_of(app).app is app
    assert middleware_stack_of(plain).app is plain


@pytest.mark.parametrize("kind", [FastAPI, Starlette])
@pytest.mark.parametrize("middleware", HARMLESS)
def test_the_short_list_is_harmless(kind, middleware) -> None:
    """Each of them, from both places; CORS is noted."""
    app = kind()
    for inside in (middleware_stack_of(stack(app, middleware)), middleware_stack_of(app_with(kind, middleware))):
        assert inside.harmless
        assert inside.cors is (middleware is CORSMiddleware)


def app_with(kind: Any, *middleware: Any) -> Any:
    app = kind()
    for each in middleware:
        app.add_middleware(each)
    return app


@pytest.mark.parametrize("kind", [FastAPI, Starlette])
def test_any_other_is_not_and_is_named(kind) -> None:
    """Also below harmless ones."""
    app = kind()
    for inside in (
        middleware_stack_of(stack(app, GZipMiddleware, Pass)),
        middleware_stack_of(app_with(kind, Pass, GZipMiddleware)),
    ):
        assert not inside.harmless
        assert "Pass" in (inside.reason or "")
        assert inside.app is not None


def test_a_subclass_is_not_on_the_list() -> None:
    """It may do anything."""
    own = type("OwnGZip", (GZipMiddleware,), {})
    assert not middleware_stack_of(stack(FastAPI(), own)).harmless


def test_middleware_outside_ours_does_not_count() -> None:
    """A hit passes through it on the way in."""
    app = FastAPI()
    app.add_middleware(Here)
    app.add_middleware(Pass)
    TestClient(app).get("/nothing")
    assert middleware_stack_of(Here.wrapped).harmless


def test_what_hides_the_app_is_named() -> None:
    """No app can be seen behind it."""
    inside = middleware_stack_of(stack(FastAPI(), Hiding))
    assert inside.app is None
    assert not inside.harmless
    assert "Hiding" in (inside.reason or "")


def test_a_plain_function_is_no_app() -> None:
    """An ASGI function is what it is."""

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        pass

    inside = middleware_stack_of(plain)
    assert inside.app is None
    assert "plain" in (inside.reason or "")


def test_a_circle_of_wrappers_ends() -> None:
    """A middleware that leads to itself leads nowhere."""
    one = Hiding(None)
    one.app = one  # type: ignore[attr-defined]
    assert middleware_stack_of(one).app is None


def test_a_second_cache_is_harmless() -> None:
    """It sees the first and passes through."""
    app = FastAPI()
    inner = CacheMiddleware(app, cache=HTTPCache())
    assert middleware_stack_of(inner).harmless
    assert middleware_stack_of(inner).app is app


def test_a_namesake_of_ours_is_not() -> None:
    """The name alone is no proof."""
    namesake = type("CacheMiddleware", (Pass,), {"__module__": "elsewhere"})
    assert not middleware_stack_of(namesake(FastAPI())).harmless


def test_a_patched_application_is_not_harmless() -> None:
    """Instrumentation that replaces the stack's builder puts itself inside a middleware around the app."""
    app = FastAPI()
    original = app.build_middleware_stack
    app.build_middleware_stack = lambda: Pass(original())  # type: ignore[method-assign]
    assert "build_middleware_stack" in (middleware_stack_of(app).reason or "")


def test_a_router_with_middleware_of_its_own_is_seen_through() -> None:
    """Starlette's routers may carry middleware too."""
    from starlette.middleware import Middleware
    from starlette.routing import Router

    assert middleware_stack_of(Router()).harmless
    assert middleware_stack_of(APIRouter()).harmless
    assert not middleware_stack_of(Router(middleware=[Middleware(Pass)])).harmless


def test_body_limits_are_harmless() -> None:
    """Where the framework has them, on the app and on its router."""
    app = FastAPI()
    if hasattr(app, "max_body_size"):
        app = FastAPI(max_body_size=1000)
        app.include_router(APIRouter(max_body_size=10))
    assert middleware_stack_of(stack(app)).harmless
