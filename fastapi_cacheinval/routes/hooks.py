"""What is put into a route that is known, so that the cache works at it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from starlette.routing import BaseRoute, Route

from fastapi_cacheinval.dependencies import Cached
from fastapi_cacheinval.routes.app_hook import hook_app
from fastapi_cacheinval.routes.dependency_tree import identity_of
from fastapi_cacheinval.routes.endpoint_calls import hook, note_calls, refuses_others
from fastapi_cacheinval.routes.fastapi_private import Dependant, hook_handler, original_of
from fastapi_cacheinval.routes.plan import SAFE_METHODS
from fastapi_cacheinval.routes.route_levels import Known
from fastapi_cacheinval.routes.validation_errors import as_alone

__all__ = ["hook_known", "hook_other"]


def hook_known(known: Known, *, always: bool = False) -> None:
    """Hook a route as far as its plan asks for it; `always` has it note each request that arrives."""
    plan = known.analysis.plan
    unsafe = not (plan.methods <= SAFE_METHODS and refuses_others(original_of(known.route)))
    if always or plan.layers or plan.layered or unsafe:
        hook(original_of(known.route))
    hook_app(known.route)
    # Where what is stored does not answer, its handler goes on from what its covers gave.
    if plan.around or plan.policy is not None or _has_covers(known.route.dependant):
        hook_handler(known.route, partial(as_alone, known.route))
    if unsafe:
        note_calls(known.route)
    _limit_covers(known.route.dependant)


def hook_other(route: BaseRoute, *, layered: bool) -> bool:
    """Hook a route that is none of FastAPI's, as `hook_known` does; False where it is to note requests, and cannot."""
    if isinstance(route, Route):
        hook_app(route)
    safe = refuses_others(route) and frozenset(route.methods or "*") <= SAFE_METHODS
    # Where a layer may change the method, a read has to be told from what it came as.
    return hook(route) if layered or not safe else True


def _has_covers(dependant: Dependant) -> bool:
    return any(
        bool(child.dependencies) if isinstance(child.call, Cached) else _has_covers(child)
        for child in dependant.dependencies
    )


def _limit_covers(dependant: Dependant) -> None:
    """Give covers the `max_concurrency` that the route declares for the same dependencies.

    FastAPI solves a cover first and then hands out its value: the limit would never be asked.
    """
    limits: dict[Any, Any] = {}
    first: dict[Any, tuple[Dependant, bool]] = {}
    for node, in_cover in _in_order(dependant, in_cover=False):
        key = identity_of(node)
        first.setdefault(key, (node, in_cover))
        if not in_cover and node.use_cache:
            # Those after it are handed its value.
            limits.setdefault(key, getattr(node, "concurrency", None))
    for key, (node, in_cover) in first.items():
        limit = limits.get(key)
        if in_cover and limit is not None and node.concurrency is None:
            node.concurrency = limit


def _in_order(dependant: Dependant, *, in_cover: bool) -> Iterator[tuple[Dependant, bool]]:
    """The nodes below one as FastAPI solves them, each with whether it is below a `cached()`."""
    for child in dependant.dependencies:
        yield from _in_order(child, in_cover=in_cover or isinstance(child.call, Cached))
        yield child, in_cover
