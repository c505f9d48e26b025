"""What stands between our middleware and the router, and whether a hit in front of it skips anything that matters."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import FunctionType, MethodType
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

from fastapi_cacheinval.core.keys import encode
from fastapi_cacheinval.routes.changes import Watched
from fastapi_cacheinval.routes.fastapi_private import EffectiveRoute, app_of, dependant_of, handler_of
from fastapi_cacheinval.routes.held_objects import KEY, ROUTE, plain_fields
from fastapi_cacheinval.routes.own_code import is_frameworks, is_unpatched

__all__ = [
    "MiddlewareStack",
    "OuterStack",
    "around",
    "leads_to_fastapi",
    "middleware_stack_of",
    "outer_stack_of",
    "passes_through",
    "routes_visibly",
]

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


# Of the harmless ones below, those that write into answers.
_WRITING: frozenset[Any] = frozenset({CORSMiddleware, GZipMiddleware})

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
    `CORSMiddleware` is on the way, and `writers` what may write into answers, the same in every process. `start` is the
    callable, and `watched` what would make the rest untrue.
    """

    app: Any
    layers: tuple[str, ...]
    cors: bool
    writers: tuple[bytes, ...]
    start: Any
    watched: Watched

    @property
    def harmless(self) -> bool:
        """Whether everything on the way may be skipped by a hit."""
        return not self.layers

    @property
    def reason(self) -> str | None:
        """Why a hit may not skip it."""
        return f"{', '.join(self.layers)} would be skipped by a hit" if self.layers else None


# Classes of this package, which stand above this module and tell it of themselves.
_ours: set[Any] = set()


def passes_through(kind: type) -> None:
    """Count a middleware class of this package as harmless: the second of its kind in a stack does nothing."""
    _ours.add(kind)


def _is_harmless(kind: Any) -> bool:
    # The very class: a subclass, or a function under its name, may do anything.
    if not isinstance(kind, type):
        return False
    return kind in _ours or (kind in _HARMLESS and is_unpatched(kind))


def _kind(step: object) -> Any:
    """What stands for an ASGI callable: its class, the function itself, or words where methods of it are replaced."""
    if isinstance(step, FunctionType | MethodType):
        return step
    known: dict[str, Any] = getattr(step, "__dict__", {})
    own = [name for name in known if isinstance(getattr(type(step), name, None), FunctionType)]
    return f"{_name(step)} with its own {'(), '.join(own)}()" if own else type(step)


def _name(thing: Any) -> str:
    if isinstance(thing, str):
        return thing
    function: Any = thing.__func__ if isinstance(thing, MethodType) else thing
    if isinstance(function, FunctionType):
        # Where it was written: what `functools.wraps` made has the name of what it wraps.
        return f"{function.__globals__.get('__name__')}.{function.__code__.co_qualname}"
    kind: Any = thing if isinstance(thing, type) else type(thing)
    return f"{kind.__module__}.{kind.__qualname__}"


def _changed(thing: object, bases: tuple[type, ...], methods: tuple[str, ...]) -> Iterator[str]:
    """The methods that a subclass, or a patch of the instance or of its class, replaces."""
    kind = type(thing)
    for method in methods:
        written = [getattr(base, method, None) for base in bases]
        stock = [each for each in written if each is None or is_frameworks(each)]
        if method in vars(thing) or getattr(kind, method, None) not in stock:
            yield f"{_name(thing)} with its own {method}()"


def _steps_from(start: Any) -> Iterator[Any]:
    """What stands on the way down `.app`, until an application, a router, the end or a circle."""
    seen: set[int] = set()
    step = start
    while step is not None and id(step) not in seen:
        seen.add(id(step))
        yield step
        if isinstance(step, Starlette | Router):
            return
        step = getattr(step, "app", None)


def _of_application(app: Starlette, watched: Watched) -> Iterator[Any]:
    """The middleware classes an application runs before its router, and what it does in a way of its own."""
    watched.attributes(app, "router")
    watched.members(app, "build_middleware_stack")
    watched.elements(app.user_middleware)
    watched.asked(_Stack(app).changed)
    yield from _changed(app, (FastAPI, Starlette), ("__call__", "build_middleware_stack"))
    yield from _in_stack(app)
    yield from _of_router(app.router, watched)


def _in_stack(app: Starlette) -> Iterator[Any]:
    """What an application's middleware stack is made of; before its first request, what it will be made of."""
    if app.middleware_stack is None:
        for middleware in app.user_middleware:
            yield middleware.cls
        return
    for step in _steps_from(app.middleware_stack):
        if step is not app.router:
            yield _kind(step)


class _Stack:
    """Tells whether an application's stack has become another one than was looked at.

    It is made at the first request: that is no change where it is made of what it was to be made of.
    """

    __slots__ = ("_app", "_made", "_seen")

    def __init__(self, app: Starlette) -> None:
        self._app = app
        self._seen: Any = app.middleware_stack
        self._made = self._layers()

    def _layers(self) -> list[Any]:
        return [kind for kind in _in_stack(self._app) if not _is_harmless(kind)]

    def changed(self) -> bool:
        """Whether it has."""
        stack: Any = self._app.middleware_stack
        if stack is self._seen:
            return False
        if self._seen is not None or self._layers() != self._made:
            return True
        self._seen = stack
        return False


def _of_router(router: Router, watched: Watched) -> Iterator[Any]:
    watched.attributes(router, "middleware_stack")
    watched.members(router, "app", "handle")
    yield from _changed(router, (APIRouter, Router), ("__call__", "app", "handle"))
    step: Any = getattr(router, "middleware_stack", None)
    while step is not None and getattr(step, "__self__", None) is not router:
        yield type(step)
        step = getattr(step, "app", None)


def _application_of(router: Router) -> Any:
    provider = getattr(router, "dependency_overrides_provider", None)
    return provider if isinstance(provider, Starlette) and provider.router is router else router


AROUND = " around its app"
INSTEAD = " in place of its handler"


def around(route: EffectiveRoute) -> Iterator[str]:
    """What stands around the function of FastAPI's that answers for a route, and what stands in its place."""
    step: Any = app_of(route)
    handler = handler_of(step)
    while handler is None and step is not None:
        kind = _kind(step)
        if not _is_harmless(kind):
            yield f"{_name(kind)}{AROUND}"
        step = getattr(step, "app", None)
        handler = handler_of(step)
    if handler is not None:
        solved = dependant_of(handler)
        if solved is None:
            yield f"{_name(handler)}{INSTEAD}"
        elif getattr(route, "app", None) is not None and solved is not route.dependant:
            yield "another dependant than its own"


def leads_to_fastapi(app: Any) -> bool:
    """Whether a route's ASGI app is the framework's own, or leads to it by `.app`."""
    return any(handler_of(step) is not None for step in _steps_from(app))


def routes_visibly(app: Any) -> bool:
    """Whether an application or router gives each request to one of its `routes`, or answers 404 itself."""
    if getattr(app, "routes", None) is None:
        return False
    router: Any = getattr(app, "router", app)
    if any(_changed(router, (APIRouter, Router), ("__call__", "app", "handle", "not_found"))):
        return False
    default: Any = getattr(router, "default", None)
    return getattr(default, "__func__", None) is Router.not_found


@dataclass(frozen=True, slots=True)
class OuterStack:
    """What a request passes before it comes to a layer.

    `found` is the layer, None where the way to it cannot be seen. `layers` are those before it, outermost first,
    `strange` names those of them that may do more than hand the request on. `root_path` is what an application on the
    way insists on. `watched` is what would make the rest untrue.
    """

    found: Any
    layers: tuple[Any, ...]
    strange: tuple[str, ...]
    root_path: str
    watched: Watched


# These hand on a GET without a body as it came, and its answer as it is.
_TRANSPARENT: frozenset[Any] = frozenset({ServerErrorMiddleware, *_optional()})


def outer_stack_of(app: Any, wanted: type, known: Collection[type] = ()) -> OuterStack:
    """Follow `.app`, and the middleware stacks of applications, from an ASGI callable to a layer of the `wanted` class.

    `known` are further classes whose instances the caller deals with itself.
    """
    watched, passed, strange, root_path = Watched(), list[Any](), list[str](), ""
    step, seen = app, set[int]()
    while step is not None and id(step) not in seen and not isinstance(step, Router):
        seen.add(id(step))
        if isinstance(step, wanted):
            return OuterStack(step, tuple(passed), tuple(strange), root_path, watched)
        passed.append(step)
        if isinstance(step, Starlette):
            strange += _changed(step, (FastAPI, Starlette), ("__call__",))
            root_path = str(getattr(step, "root_path", "") or root_path)
            watched.attributes(step, "middleware_stack", "root_path")
            step = step.middleware_stack
            continue
        kind = _kind(step)
        if kind not in known and not (kind in _TRANSPARENT and is_unpatched(kind)):
            strange.append(_name(kind))
        watched.attributes(step, "app")
        step = getattr(step, "app", None)
    return OuterStack(None, tuple(passed), tuple(strange), root_path, watched)


def _writer(kind: Any, stands: object) -> bytes:
    """A layer by its name, and by what it holds where it `stands` there already; of a strange one only text counts."""
    own: Mapping[str, object] = getattr(stands, "__dict__", {})
    holds = {name: value for name, value in own.items() if name != "app"}
    text = plain_fields(holds, KEY if kind in _WRITING else ROUTE)
    return encode((_name(kind).encode("utf-8", "surrogatepass"), *text))


def middleware_stack_of(app: Any) -> MiddlewareStack:
    """Follow `.app` from an ASGI callable down to the application or router behind it."""
    passed: list[Any] = []
    writers: list[bytes] = []
    target: Any = None
    watched = Watched()
    for step in _steps_from(app):
        met = len(passed)
        if isinstance(step, Starlette):
            target = step
            passed += _of_application(step, watched)
        elif isinstance(step, Router):
            target = _application_of(step)
            passed += _of_router(step, watched)
        else:
            passed.append(_kind(step))
            watched.attributes(step, "app")
        stands = None if isinstance(step, Starlette | Router) else step
        writers += [_writer(kind, stands) for kind in passed[met:] if kind in _WRITING or not _is_harmless(kind)]
    guards = [_name(each) for each in passed if not _is_harmless(each)]
    return MiddlewareStack(
        app=target,
        layers=tuple(dict.fromkeys(guards)),
        cors=any(each is CORSMiddleware for each in passed),
        writers=tuple(writers),
        start=app,
        watched=watched,
    )
