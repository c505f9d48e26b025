"""Where a request enters its route, behind everything that stands before it."""

from __future__ import annotations

from types import MethodType
from typing import Protocol, cast

from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_cacheinval.dependencies import SCOPE_KEY
from fastapi_cacheinval.routes.fastapi_private import EffectiveRoute, original_of

__all__ = ["RouteHook", "hook", "replaced"]


class _Entering(Protocol):
    async def enter(self, handle: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None: ...


class RouteHook:
    """Stands in place of a route's `handle`, and lets the exchange at hand, if there is one, take it from there."""

    __slots__ = ("handle",)

    def __init__(self, handle: ASGIApp) -> None:
        self.handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request that has come to its route."""
        exchange = cast("_Entering | None", scope.get(SCOPE_KEY))
        if exchange is None:
            await self.handle(scope, receive, send)
        else:
            await exchange.enter(self.handle, scope, receive, send)


def hook(route: EffectiveRoute) -> None:
    """Hook a route, once: a route that is included twice is one object, and caches of several apps may share it."""
    original = original_of(route)
    if type(vars(original).get("handle")) is not RouteHook:
        vars(original)["handle"] = RouteHook(original.handle)


def replaced(thing: object, name: str) -> object | None:
    """What has been put in place of a method on an object itself; not our hook, but what that wraps may be."""
    found: object = vars(thing).get(name)
    if type(found) is not RouteHook:
        return found
    wrapped: object = found.handle
    stock = (
        isinstance(wrapped, MethodType) and wrapped.__self__ is thing and wrapped.__func__ is getattr(type(thing), name)
    )
    return None if stock else wrapped
