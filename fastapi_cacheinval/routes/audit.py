"""The rules that a route must keep before the app may start."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from fastapi_cacheinval.dependencies import Cached, Invalidates, InvalidatesNothing
from fastapi_cacheinval.errors import CacheinvalError, CallerDependentRoute, ConfigurationError, RefusedRoute
from fastapi_cacheinval.routes.cover_lines import key_for, partition_with_key
from fastapi_cacheinval.routes.covers import Covers
from fastapi_cacheinval.routes.dependency_tree import Node
from fastapi_cacheinval.routes.misread import misread_in
from fastapi_cacheinval.routes.names import Names
from fastapi_cacheinval.routes.parameters import handler_headers, tells_callers_apart
from fastapi_cacheinval.routes.partition_types import unfit_for_a_key
from fastapi_cacheinval.routes.plan import SAFE_METHODS, RoutePlan, Sharing
from fastapi_cacheinval.routes.verdict import Verdict

__all__ = ["errors_of", "late_in", "notes_of", "warnings_of"]


def errors_of(
    plan: RoutePlan, root: Node, unbound: Iterable[CacheinvalError], inherited: frozenset[int], verdict: Verdict
) -> Iterator[ConfigurationError]:
    """What forbids the route, the caller-dependent verdict first; `inherited` are ids of what stands further out."""
    route = plan.label
    if plan.policy is not None:
        misread: set[object] = set()
        if plan.sharing is Sharing.UNPROVED:
            told = verdict.advice(root, plan.cached)
            trails = verdict.trails(root)
            yield CallerDependentRoute(plan.path, plan.uncovered, told.text, trails, of_handlers=told.of_handlers)
            # What has to go away has no other fault worth telling.
            misread = {*misread_in(root, plan.cached)}
        yield from _unfit_partitions(route, root, plan, misread)
        yield from _unfit_inputs(route, root, misread)
    for error in unbound:
        yield RefusedRoute(
            route,
            f"A tag template of it cannot be rendered: {error}.",
            "Name a path or a declared query parameter of the route, or add the tag in the handler with CacheTags.",
        )
    own = [node.call for node in root.walk() if id(node.call) not in inherited]
    declared = [call for call in own if isinstance(call, Invalidates)]
    if declared and any(isinstance(call, InvalidatesNothing) for call in own):
        yield RefusedRoute(
            route,
            f"It declares both {declared[0]!r} and invalidates_nothing().",
            "Remove one: the first where its unsafe methods only read, the second where they change something.",
        )
    if plan.methods <= SAFE_METHODS:
        for node in root.children:
            if isinstance(node.call, Invalidates) and id(node.call) not in inherited:
                yield RefusedRoute(
                    route,
                    f"It declares {node.call!r}, but answers safe methods only, which purge nothing.",
                    "Declare it on the route that changes something, or on the router of both.",
                )


def _unfit_partitions(
    route: str, root: Node, plan: RoutePlan, misread: Collection[object]
) -> Iterator[ConfigurationError]:
    covers = Covers.of(root, plan.cached)
    keys = () if plan.policy is None else plan.policy.partition_keys
    for cover, key in zip(covers.partitions, keys, strict=False):
        unfit = unfit_for_a_key(cover.call if key is None else key)
        if unfit is not None and cover.identity not in misread:
            names = Names(root)
            name = names.spelled(cover)
            gives = f"{name} gives" if key is None else f"its key for {name} gives"
            line = f"{partition_with_key(cover, root, names, covers, keys)}."
            told = (line, names.to_be_made(covers.partitions), key_for(cover, root).told)
            yield RefusedRoute(
                route,
                f"Its partition_by cannot be a part of a cache key: {gives} a {unfit}.",
                "Return what tells callers apart as a str, bytes, int, UUID, Enum, None or a tuple of these: "
                f"{' '.join(filter(None, told))}",
            )


def _unfit_inputs(route: str, root: Node, misread: Collection[object]) -> Iterator[ConfigurationError]:
    for node in root.walk():
        for field in node.declares.body_params if node.identity not in misread else ():
            yield RefusedRoute(
                route,
                f"It is cached and declares the body, form or file parameter {field.name!r} (in {node.label}), which "
                "is no part of a cache key.",
                "Take it from the query, or remove cached().",
            )
    for name in sorted(handler_headers(root) or ()):
        if name == "range" or name.startswith("if-"):
            yield RefusedRoute(
                route,
                f"It is cached and its handler {root.label} declares the header {name!r}, which the cache answers "
                "itself and removes from what it forwards.",
                "Remove the parameter, or cached().",
            )


def late_in(root: Node) -> list[Node]:
    """The `yield` dependencies that exit, and so commit, after the response is sent; each once."""
    return [*{node.identity: node for node in root.walk() if node is not root and node.late}.values()]


def warnings_of(plan: RoutePlan, root: Node, declared: Cached | None, inherited: frozenset[int]) -> Iterator[str]:
    """What works, but not as its author will expect; `declared` is the innermost `cached()`."""
    route = plan.label
    if declared is not None and declared.policy.active and "GET" not in plan.methods and _is_own(root, inherited):
        yield (
            f"{route} declares cached(), which does nothing there: only GET is answered from the cache, and HEAD with "
            "it. Remove it, or declare the route with @app.get."
        )
    added = _added_by_others(root, plan.cached)
    if added:
        all_names = Names(root)
        spelled = [*map(all_names.spelled, added)]
        lines = ", ".join(map(all_names.listed, added))
        yield (
            f"{route} runs {' and '.join(spelled)}, which only a cached() names that does nothing else there: it may "
            "answer in place of the route, and is in its OpenAPI. If that is meant, declare it: "
            f"dependencies=[{lines}]. If not, declare that cached() on its GET routes, in place of their router or app."
            f"{_made_first(all_names, added)}"
        )
    late = late_in(root)
    if late and not plan.only_reads and not plan.methods <= SAFE_METHODS:
        tasks = next((node for node in root.walk() if node.declares.background_tasks_param_name is not None), None)
        if tasks is not None:
            all_names = Names(root)
            names = [*map(all_names.spelled, late)]
            lines = ", ".join(f'Depends({name}, scope="function")' for name in names)
            yield (
                f"{route} starts background tasks (in {tasks.label}), and {' and '.join(names)} exits after them: "
                f"the tasks run before its commit. Declare it as {lines} to commit before the response is sent. If the "
                f"route changes nothing, say so: dependencies=[invalidates_nothing()].{_made_first(all_names, late)}"
            )


def _made_first(names: Names, nodes: Sequence[Node]) -> str:
    """What to write for those of the nodes that a line names and that have no name."""
    told = names.to_be_made(nodes)
    return f" {told}" if told else ""


def _added_by_others(root: Node, cached: Cached | None) -> list[Node]:
    """The covers of each `cached()` that does not count, and that are nowhere else in the tree."""
    asked: dict[object, Node] = {}
    others: set[object] = set()
    waiting = [*root.children]
    while waiting:
        node = waiting.pop()
        if isinstance(node.call, Cached) and node.call is not cached:
            asked |= {cover.identity: cover for cover in node.children}
        else:
            others.add(node.identity)
            waiting += node.children
    return [cover for identity, cover in asked.items() if identity not in others]


def _is_own(root: Node, inherited: frozenset[int]) -> bool:
    """Whether a `cached()` is declared on the route itself, and not by an app, a router or an include."""
    calls = (node.call for node in root.walk())
    return any(isinstance(call, Cached) and id(call.declared) not in inherited for call in calls)


def notes_of(plan: RoutePlan, root: Node) -> Iterator[str]:
    """What no signature shows, and its author has to know: objects through which a cover may hand on who asks."""
    handed = _handed_to_both(plan, root)
    if not handed:
        # To find names takes a look at many modules: most routes need none.
        return
    names = Names(root)
    for cover, node in handed:
        name = names.spelled(cover)
        yield (
            f"{plan.path}: {name} and the handler are handed the same {names.spelled(node)}. If {name} writes into it "
            "who the caller is (as a session's info, or SET LOCAL does), the cache cannot see it: hand the handler a "
            "dependency that takes the identity as a parameter, and name the identity in partition_by."
        )


def _handed_to_both(plan: RoutePlan, root: Node) -> list[tuple[Node, Node]]:
    """Each cover with an object that both it and the handler are handed."""
    covers = Covers.of(root, plan.cached)
    # Each by identity: the handler is handed what was made for the cover, unless it asks for one of its own.
    every = (*covers.partitions, *covers.guards)
    named = {cover.identity for cover in every}
    outside = {node.identity for node in _outside(root, plan.cached, named) if node.reused and _is_an_object(node)}
    return [
        (cover, node)
        for cover in every
        for node in cover.walk()
        if node is not cover and node.identity in outside and _is_an_object(node)
    ]


def _outside(node: Node, cached: Cached | None, named: Collection[object]) -> Iterator[Node]:
    """What the handler is handed, or what makes that; without the lookup, and without what the named covers need."""
    for child in node.children:
        if (cached is None or child.call is not cached) and child.identity not in named:
            yield child
            yield from _outside(child, cached, named)


def _is_an_object(node: Node) -> bool:
    """Whether a node gives all who take it the same object, which tells no callers apart by itself."""
    return node.bound and not node.ours and not tells_callers_apart(node)
