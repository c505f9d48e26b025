"""One `cached()` for several routes, or for several ways to one: a cover that it names runs for all of them.

Where the dependencies of one have the cover and those of another do not, the other checks callers that the app alone
lets through. So no refusal may propose a line for one that changes what another answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from fastapi_cacheinval.dependencies import Cached
from fastapi_cacheinval.errors import CallerDependentRoute, ConfigurationError
from fastapi_cacheinval.routes.dependency_tree import Node, tree_of
from fastapi_cacheinval.routes.fastapi_private import original_of
from fastapi_cacheinval.routes.names import Names
from fastapi_cacheinval.routes.route_levels import Known, Way
from fastapi_cacheinval.routes.verdict import judge

__all__ = ["mind_others"]

_MOST_SHOWN = 3


@dataclass(frozen=True, slots=True, eq=False)
class _Use:
    """One way to a route with a policy, and what its own dependencies run without that."""

    way: Way
    known: Known
    root: Node
    own: frozenset[object]


def mind_others(ways: Iterable[Way]) -> None:
    """Say in each refusal where its line may stand, and warn of a cover that only some ways to a route have."""
    together: dict[int, list[tuple[Way, Known]]] = {}
    for way in ways:
        known = way.leaf.known
        cached = None if known is None else known.analysis.plan.cached
        if known is not None and cached is not None:
            together.setdefault(id(cached.declared), []).append((way, known))
    for several in together.values():
        routes = {id(original_of(way.route)) for way, _ in several}
        # Each other has nothing to mind, and a tree takes its time.
        if len(routes) < len(several) or (len(several) > 1 and any(known.analysis.errors for _, known in several)):
            uses = [_use(way, known) for way, known in several]
            same: dict[int, list[_Use]] = {}
            for use in uses:
                same.setdefault(id(original_of(use.known.route)), []).append(use)
            for use in uses:
                _mind(use, uses, [each for each in same[id(original_of(use.known.route))] if each is not use])


def _use(way: Way, known: Known) -> _Use:
    root = tree_of(known.route.dependant, {})
    return _Use(way, known, root, frozenset(node.identity for node in _without_cached(root)))


def _without_cached(node: Node) -> Iterator[Node]:
    for child in node.children:
        if not isinstance(child.call, Cached):
            yield child
            yield from _without_cached(child)


def _mind(use: _Use, uses: Sequence[_Use], ways: Sequence[_Use]) -> None:
    """`uses` are those of the same policy, and `ways` the others to the same route."""
    analysis = use.known.analysis
    errors = tuple(_placed(error, use, uses) for error in analysis.errors)
    added = () if analysis.errors else tuple(_added(use, ways))
    if added or any(error is not before for error, before in zip(errors, analysis.errors, strict=True)):
        analysis = replace(analysis, errors=errors, warnings=(*analysis.warnings, *added))
        use.way.leaf.known = replace(use.known, analysis=analysis)


def _placed(error: ConfigurationError, use: _Use, uses: Sequence[_Use]) -> ConfigurationError:
    """The refusal with the place for its line, where that would change what others answer."""
    if not isinstance(error, CallerDependentRoute) or not error.advice:
        return error
    lacking = [each.node for each in judge(use.known.route, use.root, use.known.analysis.plan.cached).lacking]
    others = [each for each in uses if any(node.identity not in each.own for node in lacking)]
    if not others:
        return error
    ways = [each for each in others if _is_same(each, use)]
    shown = ways or others
    names = Names(use.root)
    missing = [node for node in lacking if any(node.identity not in each.own for each in shown)]
    spelled = " and ".join(dict.fromkeys(map(names.spelled, missing)))
    all_lack = not any(node.identity in each.own for node in missing for each in shown)
    run = "which does not run" if all_lack else "not all of which run"
    where = f"The policy is that of {_paths(shown)} too, {run} {spelled}"
    if ways:
        where += (
            ". Take it away where it stands, and give each include_router() its own, in dependencies=[...]; it counts "
            f"for all routes below. What follows is for {_paths([use])}."
        )
    else:
        where += f": give {_paths([use])} one of its own, in the dependencies=[...] of the route."
    told, of_handlers = f"{where} {error.advice}", f"{where} {error.of_handlers}"
    return CallerDependentRoute(error.route, error.parameters, told, error.trails, of_handlers=of_handlers)


def _added(use: _Use, ways: Sequence[_Use]) -> Iterator[str]:
    """A warning for covers that another way to the same route has among its own dependencies, and this one has not."""
    if not ways:
        return
    cached = use.known.analysis.plan.cached
    covers = {node.identity: node for place in use.root.walk() if place.call is cached for node in place.children}
    for identity, cover in covers.items():
        others = [each for each in ways if identity in each.own]
        if identity not in use.own and others:
            names = Names(use.root)
            name = names.spelled(cover)
            told = (
                f"GET {_paths([use])} runs {name} for its policy alone, and {_paths(others)}, another way to the same "
                f"route, runs it without that too: {name} may answer callers whom the app alone lets through. If that "
                f"is meant, declare it: include_router(..., dependencies=[{names.listed(cover)}]). If not, give each "
                "include_router() a policy of its own, in place of the one they have together."
            )
            yield " ".join(filter(None, [told, names.to_be_made([cover])]))


def _is_same(one: _Use, other: _Use) -> bool:
    return one is not other and original_of(one.known.route) is original_of(other.known.route)


def _paths(uses: Sequence[_Use]) -> str:
    paths = [*dict.fromkeys(use.known.analysis.plan.path for use in uses)]
    return " and ".join([*paths[:_MOST_SHOWN], *(["others"] if len(paths) > _MOST_SHOWN else [])])
