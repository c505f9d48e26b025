"""Frontends, which FastAPI answers by no route that it names in the request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["is_guarded_frontend"]


def is_guarded_frontend(scope: Mapping[str, Any]) -> bool:
    """Whether a frontend has answered that has dependencies, of its routers or of its app."""
    inside: Any = scope.get("fastapi", {})
    if "frontend_path" not in inside:
        return False
    of_route: Any = getattr(inside.get("effective_route_context"), "dependant", None)
    of_app: Any = getattr(scope.get("app"), "router", None)
    return any(getattr(each, "dependencies", ()) for each in (of_route, of_app))
