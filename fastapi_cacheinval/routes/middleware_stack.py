"""What stands between our middleware and the router, and whether a hit in front of it skips anything that matters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRouter
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Router

from fastapi_cacheinval.core.keys import as_bytes, encode
from fastapi_cacheinval.routes.fastapi_private import handler_of
from fastapi_cacheinval.routes.held_objects import KEY, ROUTE, plain_fields
from fastapi_cacheinval.routes.layer_kinds import WRITING, is_harmless, kind_of, name_of, replaced
from fastapi_cacheinval.routes.place import Watched

__all__ = [
    "MiddlewareStack",
    "leads_to_fastapi",
    "middleware_stack_of",
    "routes_visibly",
    "steps_from",
]

# What gives each request to one of its routes; a route that is an app itself to the only one.
_ENDS = (Starlette, Router, BaseRoute)


@dataclass(frozen=True, slots=True)
class MiddlewareStack:
    """What an ASGI callable leads to.

    `app` is the Starlette or FastAPI application, or its router where only that can be seen, or a route that is an app
    itself; None where none can. `layers` names what is on the way and may not be skipped by a hit, `cors` says whether
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


def steps_from(start: Any) -> Iterator[Any]:
    """What stands on the way down `.app`, until an application, a router, a route, the end or a circle."""
    seen: set[int] = set()
    step = start
    while step is not None and id(step) not in seen:
        seen.add(id(step))
        yield step
        if isinstance(step, _ENDS):
            return
        step = getattr(step, "app", None)


def _of_application(app: Starlette, watched: Watched) -> Iterator[Any]:
    """The middleware classes an application runs before its router, and what it does in a way of its own."""
    watched.attributes(app, "router")
    watched.members(app, "build_middleware_stack")
    watched.elements(app.user_middleware)
    watched.asked(_Stack(app).changed)
    yield from replaced(app, (FastAPI, Starlette), ("__call__", "build_middleware_stack"))
    yield from _in_stack(app)
    yield from _of_router(app.router, watched)


def _in_stack(app: Starlette) -> Iterator[Any]:
    """What an application's middleware stack is made of; before its first request, what it will be made of."""
    if app.middleware_stack is None:
        for middleware in app.user_middleware:
            yield middleware.cls
        return
    for step in steps_from(app.middleware_stack):
        if step is not app.router:
            yield kind_of(step)


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
        return [kind for kind in _in_stack(self._app) if not is_harmless(kind)]

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
    yield from replaced(router, (APIRouter, Router), ("__call__", "app", "handle"))
    step: Any = getattr(router, "middleware_stack", None)
    while step is not None and getattr(step, "__self__", None) is not router:
        yield type(step)
        step = getattr(step, "app", None)


def _of_route(route: BaseRoute) -> Iterator[str]:
    return replaced(route, (BaseRoute,), ("__call__",))


def _application_of(router: Router) -> Any:
    provider = getattr(router, "dependency_overrides_provider", None)
    return provider if isinstance(provider, Starlette) and provider.router is router else router


def leads_to_fastapi(app: Any) -> bool:
    """Whether a route's ASGI app is the framework's own, or leads to it by `.app`."""
    return any(handler_of(step) is not None for step in steps_from(app))


def routes_visibly(app: Any) -> bool:
    """Whether an application or router gives each request to one of its `routes`, or answers 404 itself."""
    if isinstance(app, BaseRoute):
        return not any(_of_route(app))
    if getattr(app, "routes", None) is None:
        return False
    router: Any = getattr(app, "router", app)
    if any(replaced(router, (APIRouter, Router), ("__call__", "app", "handle", "not_found"))):
        return False
    default: Any = getattr(router, "default", None)
    return getattr(default, "__func__", None) is Router.not_found


def _writer(kind: Any, stands: object) -> bytes:
    """A layer by its name, and by what it holds where it `stands` there already; of a strange one only text counts."""
    own: Mapping[str, object] = getattr(stands, "__dict__", {})
    holds = {name: value for name, value in own.items() if name != "app"}
    text = plain_fields(holds, KEY if kind in WRITING else ROUTE)
    return encode((as_bytes(name_of(kind)), *text))


def middleware_stack_of(app: Any) -> MiddlewareStack:
    """Follow `.app` from an ASGI callable down to the application or router behind it."""
    passed: list[Any] = []
    writers: list[bytes] = []
    target: Any = None
    watched = Watched()
    for step in steps_from(app):
        met = len(passed)
        if isinstance(step, Starlette):
            target = step
            passed += _of_application(step, watched)
        elif isinstance(step, Router):
            target = _application_of(step)
            passed += _of_router(step, watched)
        elif isinstance(step, BaseRoute):
            target = step
            passed += _of_route(step)
        else:
            passed.append(kind_of(step))
            watched.attributes(step, "app")
        stands = None if isinstance(step, _ENDS) else step
        writers += [_writer(kind, stands) for kind in passed[met:] if kind in WRITING or not is_harmless(kind)]
    guards = [name_of(each) for each in passed if not is_harmless(each)]
    return MiddlewareStack(
        app=target,
        layers=tuple(dict.fromkeys(guards)),
        cors=any(each is CORSMiddleware for each in passed),
        writers=tuple(writers),
        start=app,
        watched=watched,
    )
