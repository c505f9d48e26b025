"""From a route's dependency tree to its plan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType

from fastapi_cacheinval.errors import ConfigurationError
from fastapi_cacheinval.routes.audit import errors_of, late_in, notes_of, warnings_of
from fastapi_cacheinval.routes.bindings import Binding, bind
from fastapi_cacheinval.routes.covers import adds_tags, innermost, is_fed, purges_of
from fastapi_cacheinval.routes.dependency_tree import Node, Overrides, tree_of
from fastapi_cacheinval.routes.fastapi_private import EffectiveRoute
from fastapi_cacheinval.routes.held_values import qualified_name
from fastapi_cacheinval.routes.identity import cover_names, policy_terms, route_identity
from fastapi_cacheinval.routes.parameters import path_names, query_names, sees_request, varying_headers
from fastapi_cacheinval.routes.place import Place, own_number
from fastapi_cacheinval.routes.plan import SAFE_METHODS, RoutePlan, Sharing
from fastapi_cacheinval.routes.verdict import Verdict, front_off, judge

__all__ = ["Analysis", "analyse"]


@dataclass(frozen=True, slots=True)
class Analysis:
    """A plan, what forbids it, and what its author should hear."""

    plan: RoutePlan
    errors: tuple[ConfigurationError, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def analyse(
    route: EffectiveRoute, place: Place, overrides: Overrides, epoch: int = 0, otherwise: RoutePlan | None = None
) -> Analysis:
    """The plan of a route as it stands; `otherwise` is that without overrides. An author's mistakes are in `errors`."""
    root = tree_of(route.dependant, overrides)
    methods = frozenset(route.methods)
    declared = innermost(root)
    cached = declared if declared is not None and declared.policy.active and "GET" in methods else None
    policy = None if cached is None else cached.policy
    verdict = judge(route, root, cached)
    invalidations, only_reads = ((), False) if methods <= SAFE_METHODS else purges_of(root)
    templates = [*(() if policy is None else policy.templates), *(t for each in invalidations for t in each.templates)]
    in_path = frozenset(route.path_regex.groupindex) | place.parameters
    names = (name for template in templates for name in template.names)
    bindings, unbound = bind(names, root, in_path, _none if otherwise is None else otherwise.bindings)
    elsewhere = path_names(root) if verdict.layers else _elsewhere(route, root, place, verdict)
    off = front_off(route, root, place, verdict, policy, elsewhere, overridden=bool(overrides))
    covers = cover_names(root, cached)
    headers = _headers(root, place, frozenset(() if policy is None else policy.vary))
    outside = verdict.sharing is Sharing.DECLARED
    plan = RoutePlan(
        path=place.prefix + route.path_format,
        methods=methods,
        policy=policy,
        cached=cached,
        sharing=verdict.sharing,
        uncovered=verdict.evidence,
        asks_who=is_fed(root, None),
        query=None if verdict.around or verdict.layers else _query(root, bindings, otherwise),
        headers=headers,
        endpoint=qualified_name(root.call),
        identity=_identity(route, place, root, verdict),
        ordinal=place.ordinal,
        terms=b"" if policy is None else policy_terms(policy, headers, bindings, outside=outside),
        covered_by=covers.names,
        private=declared is not None and bool(declared.policy.partition or declared.policy.guards),
        switched_off=cached is None and declared is not None and "GET" in methods,
        nameless=0 if covers.complete else own_number(),
        sees_request=bool(verdict.around or verdict.layers) or sees_request(root),
        elsewhere=tuple(sorted(elsewhere)),
        front=policy is not None and off is None,
        front_off=off,
        bindings=MappingProxyType(bindings),
        invalidations=invalidations,
        only_reads=only_reads,
        adds_tags=adds_tags(root),
        layers=place.layers,
        around=verdict.layers,
        commits_late=place.commits or bool(late_in(root)) or verdict.goes_on,
        epoch=epoch,
        provider=route.dependency_overrides_provider,
    )
    errors = tuple(errors_of(plan, root, unbound, place.inherited, verdict))
    if errors and plan.sharing is not Sharing.UNPROVED:
        plan = _refused(plan, errors)
    notes = () if policy is None or policy.shared else tuple(dict.fromkeys(notes_of(plan, root)))
    return Analysis(plan, errors, tuple(warnings_of(plan, root, declared, place.inherited)), notes)


def _refused(plan: RoutePlan, errors: tuple[ConfigurationError, ...]) -> RoutePlan:
    """The plan of a route that is wrong: at the start it stops the app, met later it is forwarded and never cached."""
    evidence = (*plan.uncovered, *map(str, errors))
    return replace(plan, sharing=Sharing.UNPROVED, uncovered=evidence, front=False, front_off=str(errors[0]))


def _identity(route: EffectiveRoute, place: Place, root: Node, verdict: Verdict) -> tuple[bytes, ...]:
    layers = (*place.layers, *verdict.layers)
    # Behind layers the route's own answer is stored, which none of them has written into.
    behind = bool(layers) and verdict.sharing is not Sharing.DECLARED
    written_by = ((), ()) if behind else (place.writers, layers)
    return route_identity(place.prefix + route.path_format, place.under, frozenset(route.methods), root, *written_by)


def _elsewhere(route: EffectiveRoute, root: Node, place: Place, verdict: Verdict) -> frozenset[str]:
    """The `Path()` parameters that the path does not hold."""
    if verdict.matches:
        # It may give other values than those in the path.
        return path_names(root)
    return path_names(root) - (frozenset(route.path_regex.groupindex) | place.parameters - place.hosts)


def _headers(root: Node, place: Place, varied: frozenset[str]) -> tuple[bytes, ...]:
    """The fields that select a variant, sorted."""
    names = varying_headers(root) | varied
    if place.origin:
        # Its fields depend on Origin, and it does not always say so in Vary.
        names |= {"origin"}
    return tuple(sorted(name.encode("latin-1", "replace") for name in names))


def _query(root: Node, bindings: dict[str, Binding], otherwise: RoutePlan | None) -> frozenset[str] | None:
    names = query_names(root)
    # A tag made of what only the plain tree declares must still be told apart by the key.
    if otherwise is not None and any(binding is otherwise.bindings.get(name) for name, binding in bindings.items()):
        return None if names is None or otherwise.query is None else names | otherwise.query
    return names


_none: MappingProxyType[str, Binding] = MappingProxyType({})
