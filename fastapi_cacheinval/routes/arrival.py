"""Whether a request came to a route, and whether the route's handler ran.

A route's own dependencies, a router and a middleware can each answer a request before any handler does. Of a FastAPI
route we know: its endpoint is called through its dependency tree, and that call is noted here. Of anything else, such
as a plain Starlette route or a mounted app of another framework, we only know that it was given the request: that
counts as its handler.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Route

from fastapi_cacheinval.routes.fastapi_private import Dependant, EffectiveRoute, effective_route_at, original_of
from fastapi_cacheinval.routes.middleware_stack import leads_to_fastapi

__all__ = ["Arrival", "arrive", "expecting", "note_calls"]

_NOTED = "__cacheinval_noted__"
# What an overriding method has to hand on to, so that the framework's own still calls the endpoint.
_HANDED_ON = ("get_route_handler", "handle")


class Arrival:
    """How far one request has come: `reached` a route, and `ran` its handler, or what may be one."""

    __slots__ = ("ran", "reached")

    def __init__(self) -> None:
        self.reached = False
        self.ran = False

    def __repr__(self) -> str:
        return f"<Arrival {'ran' if self.ran else 'reached' if self.reached else 'nowhere'}>"


_expected: ContextVar[Arrival | None] = ContextVar("fastapi_cacheinval_arrival", default=None)


@contextmanager
def expecting(arrival: Arrival) -> Generator[None]:
    """Have what follows in this context, threads included, noted in `arrival`."""
    token = _expected.set(arrival)
    try:
        yield
    finally:
        _expected.reset(token)


def arrive(route: BaseRoute, scope: Any) -> None:
    """Note that a request has come to a route; a route whose endpoint is not watched counts as one that ran."""
    arrival = _expected.get()
    if arrival is None or arrival.ran:
        return
    arrival.reached = True
    if isinstance(route, APIRoute):
        effective = effective_route_at(scope)
        arrival.ran = effective is None or original_of(effective) is not route or not _watched(effective)
    else:
        # A plain route answers 405 by itself.
        methods = route.methods if isinstance(route, Route) else None
        arrival.ran = not methods or scope["method"] in methods


def note_calls(route: EffectiveRoute) -> None:
    """Have each call of a FastAPI route's endpoint noted; done once for each of its dependency trees."""
    for dependant in (route.dependant, original_of(route).dependant):
        if dependant.call is not None and not _is_noted(dependant):
            dependant.call = _noting(dependant.call)


def _is_noted(dependant: Dependant) -> bool:
    return bool(getattr(dependant.call, _NOTED, False))


def _noting(call: Callable[..., Any]) -> Callable[..., Any]:
    # What a coroutine function or a generator function gives is passed on as it is: the framework looks at `call`.
    def noted(*args: Any, **values: Any) -> Any:
        arrival = _expected.get()
        if arrival is not None:
            arrival.ran = True
        return call(*args, **values)

    own = getattr(inspect.unwrap(call), "__code__", None)
    if own is not None:
        # The framework's validation errors, and tracebacks, name the place of the endpoint.
        noted.__code__ = noted.__code__.replace(
            co_filename=own.co_filename, co_firstlineno=own.co_firstlineno, co_name=own.co_name
        )
    setattr(noted, _NOTED, True)
    return wraps(call)(noted)


def _watched(route: EffectiveRoute) -> bool:
    """Whether the endpoint of this route cannot be called without being noted, as far as anybody can tell."""
    original = original_of(route)
    if not _is_noted(route.dependant) or "get_route_handler" in vars(original):
        return False
    kind: Any = type(original)
    return _hands_on(kind) and leads_to_fastapi(getattr(route, "app", None))


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
