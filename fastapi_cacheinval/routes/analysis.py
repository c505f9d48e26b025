"""From a route's dependency tree to its plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from fastapi.routing import APIRoute

from fastapi_cacheinval.core.policy import CachePolicy
from fastapi_cacheinval.dependencies import Invalidates, InvalidatesNothing
from fastapi_cacheinval.errors import ConfigurationError
from fastapi_cacheinval.routes.advice import advice
from fastapi_cacheinval.routes.audit import errors_of, notes_of, warnings_of
from fastapi_cacheinval.routes.bindings import Binding, bind
from fastapi_cacheinval.routes.covers import innermost, uncovered
from fastapi_cacheinval.routes.dependency_tree import Node, Overrides, tree_of
from fastapi_cacheinval.routes.fastapi_private import EffectiveRoute, original_of
from fastapi_cacheinval.routes.held_values import name_of
from fastapi_cacheinval.routes.identity import partition_names, route_identity
from fastapi_cacheinval.routes.middleware_stack import AROUND, INSTEAD, around
from fastapi_cacheinval.routes.own_code import is_frameworks
from fastapi_cacheinval.routes.parameters import (
    CREDENTIALS,
    caller_reads,
    handler_headers,
    path_names,
    query_names,
    sees_request,
)
from fastapi_cacheinval.routes.place import Place, own_number
from fastapi_cacheinval.routes.plan import SAFE_METHODS, RoutePlan, Sharing
from fastapi_cacheinval.routes.route_hook import replaced

__all__ = ["Analysis", "analyse", "own_methods"]


@dataclass(frozen=True, slots=True)
class Analysis:
    """A plan, what forbids it, and what its author should hear."""

    plan: RoutePlan
    errors: tuple[ConfigurationError, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def own_methods(thing: object, stock: type, names: tuple[str, ...]) -> str | None:
    """The methods of an object, of its own or of its class, that are not the framework's, in words."""
    kind = type(thing)
    own: list[str] = []
    for name in names:
        method = getattr(stock, name, None)
        stands = getattr(kind, name, None) is method and (method is None or is_frameworks(method))
        if not stands or replaced(thing, name) is not None:
            own.append(name)
    return f"{kind.__module__}.{kind.__qualname__} has its own {'(), '.join(own)}()" if own else None


# Each of these stands between a route's tap and its handler.
_SEEING = ("get_route_handler", "handle")
# Each of these sees the request, or wraps what does.
_HANDLING = ("__init__", "__call__", "get_route_handler", "handle", "matches")


def analyse(
    route: EffectiveRoute, place: Place, overrides: Overrides, epoch: int = 0, otherwise: RoutePlan | None = None
) -> Analysis:
    """The plan of a route as it stands; never raises for what its author did wrong, which `errors` has.

    `otherwise` is the plan without overrides.
    """
    root = tree_of(route.dependant, overrides)
    methods = frozenset(route.methods)
    cached = innermost(root)
    private = cached is not None and bool(cached.policy.partition or cached.policy.guards)
    if cached is not None and not (cached.policy.active and "GET" in methods):
        cached = None
    policy = None if cached is None else cached.policy
    lacking, helpless = uncovered(root, cached)
    around_it = () if policy is None else tuple(_around_the_handler(route))
    helpless += around_it
    evidence = (*helpless, *dict.fromkeys(line for each in lacking for line in each.evidence))
    sharing = _sharing(policy, evidence)
    front_off = None if policy is None else _front_off(policy, sharing, root)
    if policy is not None and front_off is None:
        front_off = "dependencies are overridden" if overrides else _way_off(route, place)
    invalidations, only_reads = ((), False) if methods <= SAFE_METHODS else _invalidations(root)
    templates = [*(() if policy is None else policy.templates), *(t for each in invalidations for t in each.templates)]
    bindings, unbound = bind(
        (name for template in templates for name in template.names),
        root,
        frozenset(route.path_regex.groupindex) | place.parameters,
        _none if otherwise is None else otherwise.bindings,
    )
    elsewhere = path_names(root) - (frozenset(route.path_regex.groupindex) | place.parameters - place.hosts)
    if own_methods(original_of(route), APIRoute, ("matches",)):
        # It may give other values than those in the path.
        elsewhere = path_names(root)
    if policy is not None and front_off is None and elsewhere:
        front_off = f"the path does not hold the Path() parameter {min(elsewhere)!r}"
    varied = frozenset(() if policy is None else policy.vary)
    headers = ((handler_headers(root) or frozenset()) - CREDENTIALS) | varied
    if place.origin:
        # Its fields depend on Origin, and it does not always say so in Vary.
        headers |= {"origin"}
    partition = partition_names(root, cached)
    # Behind layers the route's own answer is stored, which none of them has written into.
    writers = () if place.layers and sharing is not Sharing.DECLARED else place.writers
    plan = RoutePlan(
        path=place.prefix + route.path_format,
        methods=methods,
        policy=policy,
        cached=cached,
        sharing=sharing,
        uncovered=evidence,
        query=None if around_it else _query(root, bindings, otherwise),
        headers=tuple(sorted(name.encode("latin-1", "replace") for name in headers)),
        endpoint=name_of(root.call),
        identity=route_identity(place.prefix + route.path_format, place.under, methods, root, writers),
        ordinal=place.ordinal,
        partition_of=partition.names,
        private=private,
        nameless=0 if partition.complete else own_number(),
        sees_request=bool(around_it) or sees_request(root),
        elsewhere=tuple(sorted(elsewhere)),
        front=policy is not None and front_off is None,
        front_off=front_off,
        bindings=MappingProxyType(bindings),
        invalidations=invalidations,
        only_reads=only_reads,
        layers=place.layers,
        commits_late=place.commits
        or any(node.late for node in root.walk() if node is not root)
        or _goes_on_after_the_answer(route),
        epoch=epoch,
        provider=route.dependency_overrides_provider,
    )
    # A line is only said to work where nothing is left that no cover helps against.
    line = "" if helpless or sharing is not Sharing.UNPROVED else advice(root, cached, lacking)
    errors = tuple(errors_of(plan, root, unbound, place.inherited, line))
    if errors and plan.sharing is not Sharing.UNPROVED:
        # At start-up the errors stop the app; a route met later is forwarded, never cached.
        evidence = (*plan.uncovered, *map(str, errors))
        plan = replace(plan, sharing=Sharing.UNPROVED, uncovered=evidence, front=False, front_off=str(errors[0]))
    notes = () if policy is None or policy.shared else tuple(dict.fromkeys(notes_of(plan, root)))
    return Analysis(plan, errors, tuple(warnings_of(plan, root)), notes)


def _query(root: Node, bindings: dict[str, Binding], otherwise: RoutePlan | None) -> frozenset[str] | None:
    names = query_names(root)
    # A tag made of what only the plain tree declares must still be told apart by the key.
    if otherwise is not None and any(binding is otherwise.bindings.get(name) for name, binding in bindings.items()):
        return None if names is None or otherwise.query is None else names | otherwise.query
    return names


_none: MappingProxyType[str, Binding] = MappingProxyType({})


def _invalidations(root: Node) -> tuple[tuple[Invalidates, ...], bool]:
    """Every `invalidates()` that applies, and whether an `invalidates_nothing()` inside of all of them does.

    Apps, routers and routes come in this order, so that the innermost is the last.
    """
    found: dict[int, Invalidates] = {}
    only_reads = False
    for node in root.walk():
        call: Any = node.call
        if isinstance(call, Invalidates):
            found[id(call)] = call
            only_reads = False
        elif isinstance(call, InvalidatesNothing):
            found.clear()
            only_reads = True
    return tuple(found.values()), only_reads


def _sharing(policy: CachePolicy | None, evidence: tuple[str, ...]) -> Sharing:
    if policy is not None and policy.shared:
        return Sharing.DECLARED
    if evidence:
        return Sharing.UNPROVED
    if policy is not None and (policy.partition or policy.guards):
        return Sharing.COVERED
    return Sharing.PROVED


def _front_off(policy: CachePolicy, sharing: Sharing, root: Node) -> str | None:
    """What in the route itself keeps its responses from being served before routing."""
    if policy.partition or policy.guards:
        return "partition_by and guarded_by run on every request"
    if sharing is Sharing.UNPROVED:
        return "its responses may not be shared"
    for node in root.walk():
        if node is not root and (reads := caller_reads(node, handler=False)):
            return f"shared=True does not open it while {reads[0]}"
    return None


def _around_the_handler(route: EffectiveRoute) -> Iterator[str]:
    """What of the route itself is handed the raw request before or instead of its handler, as `where: what`."""
    original = original_of(route)
    put = [name for name in _SEEING if replaced(original, name) is not None]
    for name in put:
        yield f"the route: its {name}() is replaced, by what is handed the raw request"
    own = own_methods(original, APIRoute, tuple(name for name in _SEEING if name not in put))
    if own is not None:
        yield f"the route: {own}, which is handed the raw request"
    for what in around(route):
        # A handler of the route's own making is what its method makes.
        if not what.endswith(INSTEAD) or (own is None and not put):
            yield f"the route: {what}, which is handed the raw request"


def _goes_on_after_the_answer(route: EffectiveRoute) -> bool:
    """Whether what is the route's own has the request in its hands when the answer has gone, and may commit then."""
    wrapped = any(what.endswith(AROUND) for what in around(route))
    return wrapped or own_methods(original_of(route), APIRoute, ("handle",)) is not None


def _way_off(route: EffectiveRoute, place: Place) -> str | None:
    """What on the way to the route a hit would skip."""
    return own_methods(original_of(route), APIRoute, _HANDLING) or place.front_off
