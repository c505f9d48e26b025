"""WebSocket routes, which inherit what apps and routers declare: `cached()` and its covers are for HTTP alone."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi.routing import APIWebSocketRoute

from fastapi_cacheinval.dependencies import Cached
from fastapi_cacheinval.routes.dependency_tree import tree_of
from fastapi_cacheinval.routes.fastapi_private import Dependant

__all__ = ["without_cached"]


def without_cached(route: APIWebSocketRoute) -> list[str]:
    """Take each `cached()` out of what a WebSocket route runs; a second call finds none.

    FastAPI solves the covers before it calls `cached()`, and a cover that takes a `Request`, as every security scheme
    of FastAPI's does, cannot be solved for a WebSocket. Gives a warning for each cover that nothing else of the route
    runs: it may be the check that the author counts on.
    """
    taken = [*_taken_out(route.dependant)]
    runs = {id(node.call) for node in tree_of(route.dependant, {}).walk()}
    lost = {cover.label: cover for each in taken for cover in tree_of(each, {}).children if id(cover.call) not in runs}
    return [
        f"The WebSocket route {route.path} inherits a cached() with the cover {label}. cached() and its covers run for "
        f"HTTP requests alone, so {label} does not check who connects. If it has to, add Depends({label}) to the "
        f"route, in a form that takes an HTTPConnection or a WebSocket in place of a Request."
        for label in lost
    ]


def _taken_out(dependant: Dependant) -> Iterator[Dependant]:
    for child in [*dependant.dependencies]:
        if isinstance(child.call, Cached):
            dependant.dependencies.remove(child)
            yield child
        else:
            yield from _taken_out(child)
