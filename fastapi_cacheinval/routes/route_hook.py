"""Where a request enters its route, behind everything that stands before it."""

from __future__ import annotations

from typing import Protocol, cast

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_cacheinval.dependencies import SCOPE_KEY
from fastapi_cacheinval.routes.arrival import arrive

__all__ = ["RouteHook", "hook"]


class _Entering(Protocol):
    async def enter(self, handle: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None: ...


class RouteHook:
    """Stands in place of a route's `handle`, and lets the exchange at hand, if there is one, take it from there."""

    __slots__ = ("_handle", "_route")

    def __init__(self, route: BaseRoute) -> None:
        self._route = route
        self._handle = route.handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request that has come to its route."""
        exchange = cast("_Entering | None", scope.get(SCOPE_KEY))
        if exchange is None:
            await self._handle(scope, receive, send)
        else:
            await exchange.enter(self._enter, scope, receive, send)

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrive(self._route, scope)
        await self._handle(scope, receive, send)


def hook(route: BaseRoute) -> bool:
    """Tap a route, once; False where its `handle` cannot be replaced.

    A route that is included twice is one object, and caches of several apps may share it.
    """
    try:
        own = vars(route)
    except TypeError:
        return False
    if not isinstance(own.get("handle"), RouteHook):
        own["handle"] = RouteHook(route)
    return True
