"""The rules that a route must keep before the app may start."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from fastapi_cacheinval.dependencies import Cached, Invalidates, InvalidatesNothing
from fastapi_cacheinval.errors import CacheinvalError, CallerDependentRoute, ConfigurationError
from fastapi_cacheinval.routes.advice import spelled
from fastapi_cacheinval.routes.covers import Covers
from fastapi_cacheinval.routes.dependency_tree import Node
from fastapi_cacheinval.routes.parameters import caller_reads, handler_headers
from fastapi_cacheinval.routes.partition_types import unfit_for_a_key
from fastapi_cacheinval.routes.plan import SAFE_METHODS, RoutePlan, Sharing

__all__ = ["errors_of", "notes_of", "warnings_of"]


def errors_of(
    plan: RoutePlan, root: Node, unbound: Iterable[CacheinvalError], inherited: frozenset[int], advice: str
) -> Iterator[ConfigurationError]:
    """What forbids the route, the caller-dependent verdict first; `inherited` are ids of what stands further out."""
    route = f"{'/'.join(sorted(plan.methods))} {plan.path}"
    if plan.policy is not None:
        if plan.sharing is Sharing.UNPROVED:
            yield CallerDependentRoute(plan.path, plan.uncovered, advice)
        yield from _unfit_partitions(route, root, plan)
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


def _unfit_partitions(route: str, root: Node, plan: RoutePlan) -> Iterator[ConfigurationError]:
    covers = Covers.of(root, plan.cached)
    keys = () if plan.policy is None else plan.policy.partition_keys
    for cover, key in zip(covers.partitions, keys, strict=False):
        unfit = unfit_for_a_key(cover.call if key is None else key)
        if unfit is not None:
            name = spelled(cover, root)
            gives = f"{name} gives" if key is None else f"its key for {name} gives"
            yield ConfigurationError(
                f"partition_by of the cached route {route} cannot be a part of a cache key: {gives} a {unfit}. Return "
                "what tells callers apart as a str, bytes, int, UUID, Enum, None or a tuple of these: "
                f"partition_by=PartitionBy({name}, key=lambda value: value.id)."
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


def notes_of(plan: RoutePlan, root: Node) -> Iterator[str]:
    """What no signature shows, and its author has to know: objects through which a cover may hand on who asks."""
    covers = Covers.of(root, plan.cached)
    # Each by identity: the handler is handed what was made for the cover, unless it asks for one of its own.
    every = (*covers.partitions, *covers.guards)
    named = {cover.identity for cover in every}
    outside = {node.identity for node in _outside(root, plan.cached, named) if node.reused and _is_an_object(node)}
    for cover in every:
        for node in cover.walk():
            if node is not cover and node.identity in outside and _is_an_object(node):
                name = spelled(cover, root)
                yield (
                    f"{plan.path}: {name} and the handler are handed the same {spelled(node, root)}. If {name} writes "
                    "into it who the caller is (as a session's info, or SET LOCAL does), the cache cannot see it: hand "
                    "the handler a dependency that takes the identity as a parameter, and name the identity in "
                    "partition_by."
                )


def _outside(node: Node, cached: Cached | None, named: Collection[object]) -> Iterator[Node]:
    """What the handler is handed, or what makes that; without the lookup, and without what the named covers need."""
    for child in node.children:
        if (cached is None or child.call is not cached) and child.identity not in named:
            yield child
            yield from _outside(child, cached, named)


def _is_an_object(node: Node) -> bool:
    """Whether a node gives all who take it the same object, which tells no callers apart by itself."""
    reads_caller = any(caller_reads(each, handler=False) for each in node.walk())
    return node.bound and not node.ours and not reads_caller
