"""Where a request enters what answers for a route, behind what the route itself puts around that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, cast

from fastapi.routing import APIRoute
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_cacheinval.dependencies import SCOPE_KEY
from fastapi_cacheinval.routes.layer_kinds import is_harmless, kind_of, passes_through
from fastapi_cacheinval.routes.middleware_stack import steps_from
from fastapi_cacheinval.routes.route_layers import own_methods

__all__ = ["AppHook", "beneath_app_hook", "hook_app"]

_Follow = Callable[[ASGIApp, Scope, Receive, Send], Awaitable[None]]


class AppHook:
    """Stands in place of what answers for a route, and lets the exchange at hand, if there is one, follow its answer.

    The layers of the route's own may end an answer as if it were whole.
    """

    __slots__ = ("app",)

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request that has come through the route's own layers."""
        follow = cast("_Follow | None", getattr(scope.get(SCOPE_KEY), "follow", None))
        await (self.app(scope, receive, send) if follow is None else follow(self.app, scope, receive, send))


passes_through(AppHook)


def beneath_app_hook(app: Any) -> Any:
    """The app behind a hook; any other app as it is."""
    return app.app if type(app) is AppHook else app


def hook_app(route: Any) -> None:
    """Hook what answers for a route, once, where the route has layers of its own around it."""
    original = getattr(route, "original_route", route)
    # An include of an older FastAPI leaves its app to the route as declared.
    holder: Any = route if getattr(route, "app", None) is not None else original
    steps = [*steps_from(holder.app)]
    if AppHook in map(type, steps):
        return
    own = own_methods(original, APIRoute if isinstance(original, APIRoute) else Route, ("handle",))
    if own is not None or not all(is_harmless(kind_of(step)) for step in steps[:-1]):
        # One whose attributes cannot be set stays as it is.
        with suppress(AttributeError, TypeError):
            (steps[-2] if len(steps) > 1 else holder).app = AppHook(steps[-1])
