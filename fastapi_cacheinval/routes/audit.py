"""The rules that a route must keep before the app may start."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fastapi_cacheinval.dependencies import Invalidates, InvalidatesNothing
from fastapi_cacheinval.errors import CacheinvalError, CallerDependentRoute, ConfigurationError
from fastapi_cacheinval.routes.dependency_tree import Node
from fastapi_cacheinval.routes.parameters import handler_headers
from fastapi_cacheinval.routes.plan import SAFE_METHODS, RoutePlan, Sharing

__all__ = ["errors_of", "warnings_of"]


def errors_of(
    plan: RoutePlan, root: Node, unbound: Iterable[CacheinvalError], inherited: frozenset[int]
) -> Iterator[ConfigurationError]:
    """What forbids the route, the caller-dependent verdict first; `inherited` are ids of what stands further out."""
    route = f"{'/'.join(sorted(plan.methods))} {plan.path}"
    if plan.policy is not None:
        if plan.sharing is Sharing.UNPROVED:
            yield CallerDependentRoute(plan.path, plan.uncovered)
        yield from _unfit_inputs(route, root)
    for error in unbound:
        yield ConfigurationError(f"A tag template of {route} cannot be rendered: {error}.")
    own = [node.call for node in root.walk() if id(node.call) not in inherited]
    declared = [call for call in own if isinstance(call, Invalidates)]
    if declared and any(isinstance(call, InvalidatesNothing) for call in own):
        yield ConfigurationError(
            f"{route} declares both {declared[0]!r} and invalidates_nothing(). Remove one: the first where its unsafe "
            "methods only read, the second where they change something."
        )
    if plan.methods <= SAFE_METHODS:
        for node in root.children:
            if isinstance(node.call, Invalidates) and id(node.call) not in inherited:
                yield ConfigurationError(
                    f"{route} declares {node.call!r}, but answers safe methods only, which purge nothing. "
                    "Declare it on the route that changes something, or on the router of both."
                )


def _unfit_inputs(route: str, root: Node) -> Iterator[ConfigurationError]:
    for node in root.walk():
        for field in node.declares.body_params:
            yield ConfigurationError(
                f"The cached route {route} declares the body, form or file parameter {field.name!r} (in "
                f"{node.label}), which is no part of a cache key. Take it from the query, or remove cached()."
            )
    for name in sorted(handler_headers(root) or ()):
        if name == "range" or name.startswith("if-"):
            yield ConfigurationError(
                f"The handler {root.label} of the cached route {route} declares the header {name!r}, which the cache "
                "answers itself and removes from what it forwards. Remove the parameter, or cached()."
            )


def warnings_of(plan: RoutePlan, root: Node) -> Iterator[str]:
    """What works, but not as its author will expect."""
    if plan.commits_late and not plan.methods <= SAFE_METHODS:
        for node in root.walk():
            if node.declares.background_tasks_param_name is not None:
                yield (
                    f"{'/'.join(sorted(plan.methods))} {plan.path} starts background tasks (in {node.label}) and has a "
                    "yield dependency that exits after them: the tasks run before its commit. Declare it as "
                    'Depends(..., scope="function") to commit before the response is sent.'
                )
                return
