"""What an author would have to write, had they not said that a route's responses are the same for all."""

from __future__ import annotations

from fastapi_cacheinval.routes.dependency_tree import tree_of
from fastapi_cacheinval.routes.route_levels import Known
from fastapi_cacheinval.routes.verdict import judge

__all__ = ["stricter"]


def stricter(known: Known) -> str:
    """What the covers of a cached route leave uncovered, and the line that works; empty where nothing shows."""
    root = tree_of(known.route.dependant, {})
    cached = known.analysis.plan.cached
    return "" if cached is None else judge(known.route, root, cached).advice(root, cached).text
