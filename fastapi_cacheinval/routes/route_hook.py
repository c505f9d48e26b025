"""Where a request enters its route, behind everything that stands before it."""

from __future__ import annotations

from types import MethodType
from typing import Protocol, cast

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_cacheinval.dependencies import SCOPE_KEY
from fastapi_cacheinval.routes.endpoint_calls import arrive

__all__ = ["RouteHook", "hook", "replaced"]


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


def replaced(thing: object, name: str) -> object | None:
    """What has been put in place of a method on an object itself; not our hook, but what that wraps may be."""
    found: object = getattr(thing, "__dict__", {}).get(name)
    if type(found) is not RouteHook:
        return found
    wrapped: object = found.handle
    stock = (
        isinstance(wrapped, MethodType) and wrapped.__self__ is thing and wrapped.__func__ is getattr(type(thing), name)
    )
    return None if stock else wrapped
