"""Where a request enters its route, behind everything that stands before it, and each call of the route's endpoint."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from functools import cache, wraps
from types import MethodType
from typing import Any, Protocol, TypeGuard, cast

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_cacheinval.core.extent import Handler
from fastapi_cacheinval.dependencies import SCOPE_KEY
from fastapi_cacheinval.routes.arrival import Visit, current_visit
from fastapi_cacheinval.routes.fastapi_private import (
    Dependant,
    EffectiveRoute,
    app_of,
    effective_route_at,
    is_fastapis,
    original_of,
)
from fastapi_cacheinval.routes.middleware_stack import leads_to_fastapi

__all__ = ["RouteHook", "arrive", "declared_call", "hook", "note_calls", "put_over", "refuses_others"]

_NOTED = "__cacheinval_noted__"
_STOCK = (Route.handle, APIRoute.handle)
# What an overriding method has to hand on to, so that the framework's own still calls the endpoint.
_HANDED_ON = ("get_route_handler", "handle")


def arrive(route: BaseRoute, scope: Any) -> None:
    """Note that a request has come to a route; a route whose endpoint is not watched counts as its handler."""
    visit = current_visit.get()
    if visit is None:
        return
    if _answers_405(route, scope["method"]):
        visit.note(Handler.STOPPED)
    elif isinstance(route, APIRoute):
        effective = effective_route_at(scope)
        watched = effective is not None and original_of(effective) is route and _watched(effective)
        kind: Any = type(route)
        visit.own_way = watched and (_has_own_way(kind) or put_over(route, "handle") is not None)
        visit.note(Handler.STOPPED if watched else Handler.GIVEN)
    else:
        visit.note(Handler.GIVEN)


def _answers_405(route: BaseRoute, method: str) -> bool:
    """Whether the framework itself refuses a method that a route does not have, whatever a layer makes of that."""
    methods: Any = getattr(route, "methods", None)
    return bool(methods) and method not in methods and refuses_others(route)


def refuses_others(route: BaseRoute) -> TypeGuard[Route]:
    """Whether the framework answers 405 to each method that a route does not have, before anything of the route's."""
    return isinstance(route, Route) and type(route).handle in _STOCK and put_over(route, "handle") is None


def note_calls(route: EffectiveRoute) -> None:
    """Have each call of a FastAPI route's endpoint noted; done once for each of its dependency trees."""
    for dependant in (route.dependant, original_of(route).dependant):
        if dependant.call is not None and not _is_noted(dependant):
            dependant.call = _noting(dependant.call)


def _is_noted(dependant: Dependant) -> bool:
    # The very function: one that wraps it has a copy of what it says of itself.
    return getattr(dependant.call, _NOTED, None) is dependant.call


def declared_call(dependant: Dependant) -> Any:
    """What a dependant was made to call, noted or not."""
    call: Any = dependant.call
    return call.__wrapped__ if _is_noted(dependant) else call


def _noting(call: Callable[..., Any]) -> Callable[..., Any]:
    # A generator function's generator is passed on as it is: the framework looks at `call`.
    def noted(*args: Any, **values: Any) -> Any:
        visit = current_visit.get()
        if visit is None:
            return call(*args, **values)
        visit.called()
        try:
            result = call(*args, **values)
        except BaseException as error:
            visit.raised(error)
            raise
        if inspect.isawaitable(result) and _on_loop():
            return _awaited(result, visit)
        visit.returned(result)
        return result

    own = getattr(inspect.unwrap(call), "__code__", None)
    if own is not None:
        # The framework's validation errors, and tracebacks, name the place of the endpoint.
        noted.__code__ = noted.__code__.replace(
            co_filename=own.co_filename, co_firstlineno=own.co_firstlineno, co_name=own.co_name
        )
    wraps(call)(noted)
    setattr(noted, _NOTED, noted)
    return noted


async def _awaited(result: Awaitable[Any], visit: Visit) -> Any:
    try:
        value = await result
    except BaseException as error:
        visit.raised(error)
        raise
    visit.returned(value)
    return value


def _on_loop() -> bool:
    """Whether this thread has an event loop, so that what is returned is awaited."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _watched(route: EffectiveRoute) -> bool:
    """Whether the endpoint of this route cannot be called without being noted, as far as anybody can tell."""
    original = original_of(route)
    if not _is_noted(route.dependant) or "get_route_handler" in vars(original):
        return False
    kind: Any = type(original)
    app = app_of(route)
    return _hands_on(kind) and (is_fastapis(app) or leads_to_fastapi(app))


@cache
def _has_own_way(kind: Any) -> bool:
    """Whether a route class overrides a method on the way to the endpoint."""
    return any(getattr(kind, name) is not getattr(APIRoute, name) for name in _HANDED_ON)


@cache
def _hands_on(kind: type[Any]) -> bool:
    """Whether each method that a route class overrides calls the one that it overrides."""
    for base in kind.__mro__:
        if base is APIRoute:
            return True
        for name in _HANDED_ON:
            code = getattr(vars(base).get(name), "__code__", None)
            if name in vars(base) and (code is None or name not in code.co_names):
                return False
    return True


class _Entering(Protocol):
    async def enter(self, handle: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None: ...


class RouteHook:
    """Stands in place of a route's `handle`, and lets the exchange at hand, if there is one, take it from there."""

    __slots__ = ("_route", "handle")

    def __init__(self, route: BaseRoute) -> None:
        self._route = route
        self.handle: ASGIApp = route.handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request that has come to its route."""
        exchange = cast("_Entering | None", scope.get(SCOPE_KEY))
        if exchange is None:
            await self.handle(scope, receive, send)
        else:
            await exchange.enter(self._enter, scope, receive, send)

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrive(self._route, scope)
        await self.handle(scope, receive, send)


def hook(route: BaseRoute) -> bool:
    """Hook a route, once; False where its `handle` cannot be replaced.

    A route that is included twice is one object, and caches of several apps may share it.
    """
    try:
        own = vars(route)
    except TypeError:
        return False
    if type(own.get("handle")) is not RouteHook:
        own["handle"] = RouteHook(route)
    return True


def put_over(thing: object, name: str) -> object | None:
    """What has been put in place of a method on an object itself; not our hook, but what that wraps may be."""
    found: object = getattr(thing, "__dict__", {}).get(name)
    if type(found) is not RouteHook:
        return found
    wrapped: object = found.handle
    stock = (
        isinstance(wrapped, MethodType) and wrapped.__self__ is thing and wrapped.__func__ is getattr(type(thing), name)
    )
    return None if stock else wrapped
