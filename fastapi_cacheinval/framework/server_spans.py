"""Telling whoever observes requests outside of the middleware which route a hit is of, although it never ran.

Three kinds are known. FastAPI's own telemetry keeps the route in the scope, and learns it from the router.
`opentelemetry-instrumentation-fastapi` finds the route before the request goes in, and its older metrics look at
`scope["route"]` afterwards, as Starlette's own middleware does. `opentelemetry-instrumentation-asgi` knows no routes:
the span and the attributes of its metrics are variables of its `__call__`, which is further up the stack of calls when
a request comes in, whatever `send` the layers in between have made. Each hook is tried, and does nothing where a
release has come to look different.
"""

from __future__ import annotations

import inspect
import logging
import sys
from typing import Any, NamedTuple

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind
from starlette.types import Scope

from fastapi_cacheinval.routes.fastapi_private import route_selected

__all__ = ["Contrib", "contrib_outside", "name_hit", "name_route"]

logger = logging.getLogger("fastapi_cacheinval.telemetry")

_ROUTE = "http.route"
_MODULE = "opentelemetry.instrumentation.asgi"
_CALL = "OpenTelemetryMiddleware.__call__"
# Calls between the instrumentation and the cache: a layer takes two or three.
_MOST_CALLS = 60


class Contrib(NamedTuple):
    """What a contrib instrumentation has made of a request: its span, and the attributes of its metrics if known."""

    span: Span
    attributes: dict[str, Any] | None


def contrib_outside(scope: Scope) -> Contrib | None:
    """The contrib instrumentation that a request has come through, asked as it comes in; None without one.

    A layer that runs the app in a task of its own hides all but the span.
    """
    if _MODULE not in sys.modules or scope.get("fastapi.telemetry") is not None:
        return None
    frame = inspect.currentframe()
    for _ in range(_MOST_CALLS):
        if frame is None:
            break
        if frame.f_code.co_qualname == _CALL and frame.f_globals.get("__name__") == _MODULE:
            variables = frame.f_locals
            span, attributes = variables.get("span"), variables.get("attributes")
            return Contrib(span, attributes) if isinstance(span, Span) and isinstance(attributes, dict) else None
        frame = frame.f_back
    return Contrib(trace.get_current_span(), None)


class _Route:
    """What stands in the scope for a route that was not asked."""

    __slots__ = ("path", "path_format")

    def __init__(self, template: str) -> None:
        self.path = self.path_format = template


_hit: dict[str, _Route] = {}


def name_hit(scope: Scope, template: str) -> None:
    """Give a front hit its route, as `name_route` does, in less time: it is on the path of every observed hit."""
    if "fastapi.telemetry" in scope or _MODULE in sys.modules:
        name_route(scope, contrib_outside(scope), template, routed=False)
        return
    # One for all hits of a route, as the route itself is.
    scope["route"] = _hit.get(template) or _hit.setdefault(template, _Route(template))


def name_route(scope: Scope, contrib: Contrib | None, template: str, *, routed: bool) -> None:
    """Give the server's span and metrics of this request its route; `routed` says that the router has seen it."""
    try:
        if not routed:
            scope["route"] = _Route(template)
            route_selected(scope, template)
        if contrib is not None:
            _name_for_contrib(scope, contrib, template)
    except Exception:
        # Nobody's request fails for want of a name.
        logger.debug("the route of a hit could not be told to the server's span", exc_info=True)


def _name_for_contrib(scope: Scope, contrib: Contrib, template: str) -> None:
    span, attributes = contrib
    # A span that has its route keeps it: `opentelemetry-instrumentation-fastapi` has found it.
    if _ROUTE in (attributes or {}) or _ROUTE in (getattr(span, "attributes", None) or {}):
        return
    if attributes is not None:
        attributes[_ROUTE] = template
    # The span belongs to a trace that has another server's span where its kind is another.
    if span.is_recording() and getattr(span, "kind", None) is SpanKind.SERVER:
        span.set_attribute(_ROUTE, template)
        span.update_name(f"{scope['method']} {template}")
