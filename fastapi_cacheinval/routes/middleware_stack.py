"""What stands between our middleware and the router, and whether a hit in front of it skips anything that matters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.routing import APIRouter
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import Router

__all__ = ["MiddlewareStack", "around", "leads_to_fastapi", "middleware_stack_of", "routes_visibly"]

# Not in every version that we run on.
_SOMETIMES = (
    ("starlette.middleware.body_limit", "RequestBodyLimitMiddleware"),
    ("fastapi._body_limit", "AppBodyLimitMiddleware"),
    ("fastapi._body_limit", "_BodyLimitExceptionMiddleware"),
    ("fastapi.telemetry._asgi", "ExceptionTelemetryMiddleware"),
)


def _optional() -> Iterator[Any]:
    for module, name in _SOMETIMES:
        try:
            yield getattr(import_module(module), name)
        except (ImportError, AttributeError):
            continue


# None of these decides who may see a response, or changes it by more than its own request headers say.
_HARMLESS: frozenset[Any] = frozenset(
    {
        AsyncExitStackMiddleware,
        CORSMiddleware,
        ExceptionMiddleware,
        GZipMiddleware,
        HTTPSRedirectMiddleware,
        ServerErrorMiddleware,
        TrustedHostMiddleware,
        *_optional(),
    }
)


@dataclass(frozen=True, slots=True)
class MiddlewareStack:
    """What an ASGI callable leads to.

    `app` is the Starlette or FastAPI application, or its router where only that can be seen; None where
    neither can. `layers` names what is on the way and may not be skipped by a hit, `cors` says whether
    `CORSMiddleware` is on the way.
    """

    app: Any
    layers: tuple[str, ...]
    cors: bool

    @property
    def harmless(self) -> bool:
        """Whether everything on the way may be skipped by a hit."""
        return not self.layers

    @property
    def reason(self) -> str | None:
        """Why a hit may not skip it."""
        return f"{', '.join(self.layers)} would be skipped by a hit" if self.layers else None


def _is_harmless(kind: Any) -> bool:
    # Identity: a subclass may do anything. Our own is known by name, because it imports this module.
    if kind in _HARMLESS:
        return True
    name, module = getattr(kind, "__name__", ""), str(getattr(kind, "__module__", ""))
    return name == "CacheMiddleware" and module.partition(".")[0] == "fastapi_cacheinval"


def _name(thing: Any) -> str:
    kind: Any = thing if isinstance(thing, type) else type(thing)
    if kind.__name__ == "function":
        kind = thing
    return f"{kind.__module__}.{kind.__qualname__}"


def _changed(thing: object, bases: tuple[type, ...], methods: tuple[str, ...]) -> Iterator[str]:
    """The methods that a subclass, or a patch of the instance, replaces."""
    kind = type(thing)
    for method in methods:
        stock = [getattr(base, method, None) for base in bases]
        if method in vars(thing) or getattr(kind, method, None) not in stock:
            yield f"{_name(thing)} with its own {method}()"


def _of_application(app: Starlette) -> Iterator[Any]:
    """The middleware classes an application runs before its router, and what it does in a way of its own."""
    yield from _changed(app, (FastAPI, Starlette), ("__call__", "build_middleware_stack"))
    for middleware in app.user_middleware:
        yield middleware.cls
    yield from _of_router(app.router)


def _of_router(router: Router) -> Iterator[Any]:
    yield from _changed(router, (APIRouter, Router), ("__call__", "app", "handle"))
    step: Any = getattr(router, "middleware_stack", None)
    while step is not None and getattr(step, "__self__", None) is not router:
        yield type(step)
        step = getattr(step, "app", None)


def _application_of(router: Router) -> Any:
    provider = getattr(router, "dependency_overrides_provider", None)
    return provider if isinstance(provider, Starlette) and provider.router is router else router


def around(handler: Any) -> tuple[str, ...]:
    """What a FastAPI route's own ASGI app has around the framework's function that answers."""
    found: list[str] = []
    step = handler
    while step is not None and getattr(step, "__module__", "").partition(".")[0] != "fastapi":
        if not _is_harmless(type(step)):
            found.append(_name(step))
        step = getattr(step, "app", None)
    return tuple(found)


def leads_to_fastapi(handler: Any) -> bool:
    """Whether a route's ASGI app is the framework's own, or leads to it by `.app`."""
    seen: set[int] = set()
    step = handler
    while step is not None and id(step) not in seen:
        if getattr(step, "__module__", "").partition(".")[0] == "fastapi" and not hasattr(step, "app"):
            return True
        seen.add(id(step))
        step = getattr(step, "app", None)
    return False


def routes_visibly(app: Any) -> bool:
    """Whether an application or router gives each request to one of its `routes`, or answers 404 itself."""
    if getattr(app, "routes", None) is None:
        return False
    router: Any = getattr(app, "router", app)
    if any(_changed(router, (APIRouter, Router), ("__call__", "app", "handle", "not_found"))):
        return False
    default: Any = getattr(router, "default", None)
    return getattr(default, "__func__", None) is Router.not_found


def middleware_stack_of(app: Any) -> MiddlewareStack:
    """Follow `.app` from an ASGI callable down to the application or router behind it."""
    passed: list[Any] = []
    target: Any = None
    seen: set[int] = set()
    step = app
    while id(step) not in seen:
        seen.add(id(step))
        if isinstance(step, Starlette):
            target = step
            passed += _of_application(step)
            break
        if isinstance(step, Router):
            target = _application_of(step)
            passed += _of_router(step)
            break
        passed.append(type(step) if not hasattr(step, "__qualname__") else step)
        step = getattr(step, "app", None)
        if step is None:
            break
    guards = [each if isinstance(each, str) else _name(each) for each in passed if not _is_harmless(each)]
    return MiddlewareStack(
        app=target,
        layers=tuple(dict.fromkeys(guards)),
        cors=any(each is CORSMiddleware for each in passed),
    )
