"""Telling whoever observes requests outside of the middleware which route a hit is of, although it never ran.

Three kinds are known. FastAPI's own telemetry keeps the route in the scope, and learns it from the router.
`opentelemetry-instrumentation-fastapi` finds the route before the request goes in, and its older metrics look at
`scope["route"]` afterwards, as Starlette's own middleware does. `opentelemetry-instrumentation-asgi` knows no routes:
the attributes of its metrics are in a variable of the `send` that it passes on. Each hook is tried, and does nothing
where a release has come to look different.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from opentelemetry.trace import SpanKind
from starlette.types import Scope, Send

from fastapi_cacheinval.routes.fastapi_private import route_selected

__all__ = ["name_route"]

logger = logging.getLogger("fastapi_cacheinval.telemetry")

_ROUTE = "http.route"
# Layers outside ours that have a `send` of their own between us and the instrumentation.
_MOST_LAYERS = 12
_OF_CONTRIB = "OpenTelemetryMiddleware._get_otel_send."


class _Route:
    """What stands in the scope for a route that was not asked."""

    __slots__ = ("path", "path_format")

    def __init__(self, template: str) -> None:
        self.path = self.path_format = template


def name_route(scope: Scope, send: Send, template: str, *, routed: bool) -> None:
    """Give the server's span and metrics of this request its route; `routed` says that the router has seen it."""
    try:
        if not routed:
            scope["route"] = _Route(template)
            route_selected(scope, template)
        if scope.get("fastapi.telemetry") is None:
            _name_for_contrib(scope, send, template)
    except Exception:
        # Nobody's request fails for want of a name.
        logger.debug("the route of a hit could not be told to the server's span", exc_info=True)


def _name_for_contrib(scope: Scope, send: Send, template: str) -> None:
    variables = _variables_of_contrib(send)
    attributes, span = variables.get("duration_attrs"), variables.get("server_span")
    if not isinstance(attributes, dict) or _ROUTE in attributes:
        return
    attributes[_ROUTE] = template
    # The span belongs to a trace that has another server's span where its kind is another.
    if span is not None and span.is_recording() and getattr(span, "kind", None) is SpanKind.SERVER:
        span.set_attribute(_ROUTE, template)
        span.update_name(f"{scope['method']} {template}")


def _variables_of_contrib(send: Any) -> dict[str, Any]:
    """The variables of the instrumentation's `send`, wherever it stands outside of this one; none without it."""
    for _ in range(_MOST_LAYERS):
        code, closure = getattr(send, "__code__", None), getattr(send, "__closure__", None)
        if code is None or closure is None:
            break
        variables: dict[str, Any] = {}
        for name, cell in zip(code.co_freevars, closure, strict=True):
            with contextlib.suppress(ValueError):
                variables[name] = cell.cell_contents
        if code.co_qualname.startswith(_OF_CONTRIB):
            return variables
        send = variables.get("send")
    return {}
