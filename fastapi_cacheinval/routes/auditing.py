"""What an app's plans say: the audit, made of what its table of routes says, and of a request that is not made."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request

from fastapi_cacheinval.core.audit import Audit, MutationAudit, RouteAudit, SharedBy
from fastapi_cacheinval.core.extent import PathReach, path_reach
from fastapi_cacheinval.errors import ConfigurationError, RefusedRoutes
from fastapi_cacheinval.routes.bindings import rendered_all
from fastapi_cacheinval.routes.layer_kinds import name_of
from fastapi_cacheinval.routes.path_shapes import IN_PATH
from fastapi_cacheinval.routes.plan import SAFE_METHODS, RoutePlan, Sharing
from fastapi_cacheinval.routes.purge_map import PurgeMap
from fastapi_cacheinval.routes.table import RouteTable

__all__ = [
    "Around",
    "audit_of",
    "audit_table",
    "cover_name",
    "key_parts_of",
    "path_params_of",
    "shared_by_of",
    "tags_of",
]


@dataclass(frozen=True, slots=True)
class Around:
    """What no plan says: `path_purges` is the cache's setting, the others are as in an `Audit`."""

    path_purges: PathReach = True
    by_headers: bool = False
    changes_elsewhere: bool = False

    @property
    def reach(self) -> PathReach:
        """How far mutations purge paths."""
        return path_reach(self.path_purges, by_headers=self.by_headers)

    def purges_paths(self, plan: RoutePlan) -> bool:
        """Whether a mutation of this route purges paths."""
        return bool(self.reach) and plan.purges_paths


def cover_name(cover: Any) -> str:
    """A dependency of a partition or a guard, as its author calls it."""
    call = getattr(cover, "dependency", cover)
    return str(getattr(call, "__name__", None) or name_of(call))


def shared_by_of(plan: RoutePlan) -> tuple[SharedBy, str]:
    """Who shares a route's responses, and why, in words."""
    policy = plan.policy
    assert policy is not None
    partition, guards = (", ".join(map(cover_name, covers)) for covers in (policy.partition, policy.guards))
    match plan.sharing:
        case Sharing.UNPROVED:
            return "nobody", "; ".join(plan.uncovered) or "it may not be shared"
        case Sharing.DECLARED:
            return "declared", "shared=True: its author says that the response is the same for all"
        case Sharing.PROVED:
            return "everyone", "nothing that the route reads can tell callers apart"
        case Sharing.COVERED if partition:
            also = f", and {guards} runs on every request" if guards else ""
            return "partition", f"one response for each value of {partition}, which runs on every request{also}"
        case Sharing.COVERED if guards:
            return "guarded", f"one response for all who pass {guards}, which runs on every request"
        case Sharing.COVERED:
            return "declared", "request_is_shared=True: its author says that what is made of the request is the same"


def key_parts_of(plan: RoutePlan) -> tuple[str, ...]:
    """The parts of a route's cache key, by name; no values."""
    policy = plan.policy
    assert policy is not None
    query = ("all query parameters",) if plan.query is None else tuple(f"query {name}" for name in sorted(plan.query))
    headers = tuple(f"header {name.decode('latin-1')}" for name in plan.headers)
    partition = tuple(f"partition {cover_name(each)}" for each in policy.partition)
    return ("scheme", "host", "path", *query, *headers, *partition)


def _route(plan: RoutePlan) -> RouteAudit:
    policy = plan.policy
    assert policy is not None
    shared_by, why = shared_by_of(plan)
    return RouteAudit(
        route=plan.get_label,
        endpoint=plan.endpoint,
        shared_by=shared_by,
        why=why,
        partition_by=tuple(map(cover_name, policy.partition)),
        guarded_by=tuple(map(cover_name, policy.guards)),
        key=key_parts_of(plan),
        tags=tuple(template.text for template in policy.templates),
        adds_tags=plan.adds_tags,
        ttl=max(policy.lifetimes.values()),
        stale_while_revalidate=policy.stale_seconds,
        stale_if_error=policy.error_seconds,
        lookup="front" if plan.front else "route",
        front_off=plan.front_off,
        purged_by=(),
    )


def _mutation(plan: RoutePlan, around: Around) -> MutationAudit:
    tags = dict.fromkeys(template.text for each in plan.invalidations for template in each.templates)
    return MutationAudit(
        route=plan.mutation_label,
        endpoint=plan.endpoint,
        tags=tuple(tags),
        adds_tags=plan.adds_tags and not plan.only_reads,
        purges_paths=around.purges_paths(plan),
        only_reads=plan.only_reads,
        purges=(),
    )


def audit_table(table: RouteTable, around: Around) -> Audit:
    """What the routes of a table say of caching; what would keep the app from starting is in `refusals`."""
    refusals: tuple[str, ...] = ()
    try:
        table.audit()
    except RefusedRoutes as error:
        refusals = tuple(map(str, error.errors))
    except ConfigurationError as error:
        refusals = (str(error),)
    return audit_of(table.plans, around, refusals=refusals, warnings=table.warnings(by_headers=around.by_headers))


def audit_of(
    plans: Sequence[RoutePlan], around: Around, *, refusals: Sequence[str] = (), warnings: Sequence[str] = ()
) -> Audit:
    """What the plans of an app's routes say together.

    Ten thousand routes take about a second: on an event loop that serves requests, leave it to a thread.
    """
    cached = [plan for plan in plans if plan.policy is not None]
    unsafe = [plan for plan in plans if not plan.methods <= SAFE_METHODS]
    purges = PurgeMap(cached, unsafe, around.reach)
    # One route may be reached by several ways.
    routes = {replace(_route(plan), purged_by=purges.of_page(plan.get_label)): None for plan in cached}
    mutations = {
        replace(_mutation(plan, around), purges=purges.of_mutation(plan.mutation_label)): None for plan in unsafe
    }
    found = Audit(
        routes=tuple(routes),
        mutations=tuple(mutations),
        uncached=tuple(dict.fromkeys(p.get_label for p in plans if p.policy is None and "GET" in p.methods)),
        by_headers=around.by_headers,
        changes_elsewhere=around.changes_elsewhere,
        refusals=tuple(refusals),
        warnings=tuple(warnings),
    )
    return _with_holes(found, purges)


def _with_holes(audit: Audit, purges: PurgeMap) -> Audit:
    elsewhere = audit.changes_elsewhere
    mutations_add = any(each.adds_tags for each in audit.mutations)
    # What is cached by headers has tags that no template says, and paths of its own.
    routes_add = audit.by_headers or any(each.adds_tags for each in audit.routes)
    # A tag that is found while answering, or that comes from elsewhere, may be any.
    by_tag = elsewhere or mutations_add
    unpurged = [each for each in audit.routes if not (each.purged_by or (by_tag and (each.tags or each.adds_tags)))]
    purging_nothing = [
        each
        for each in audit.mutations
        if not (each.purges or each.only_reads or each.adds_tags or elsewhere or (each.tags and routes_add))
        and not (each.purges_paths and audit.by_headers)
    ]
    return replace(
        audit,
        unpurged=tuple(dict.fromkeys(each.route for each in unpurged)),
        purging_nothing=tuple(dict.fromkeys(each.route for each in purging_nothing)) if audit.routes else (),
        lonely_tags=tuple(purges.lonely_tags(purged_too=by_tag, declared_too=routes_add)),
    )


def path_params_of(plan: RoutePlan, path: str) -> dict[str, str]:
    """The parameters in a path that the route answers, as far as its template says; `path` is without the root path."""
    # What is between the parameters, and their names, by turns.
    parts = IN_PATH.split(plan.path)
    literal, names = [*map(re.escape, parts[::2])], parts[1::2]
    # A parameter with slashes in it has a convertor, which the template does not show.
    found = re.fullmatch("([^/]+)".join(literal), path) or re.fullmatch("(.+?)".join(literal), path, re.DOTALL)
    return {} if found is None else dict(zip(names, found.groups(), strict=True))


def tags_of(plan: RoutePlan, request: Request) -> tuple[str, ...] | None:
    """What the route's templates give for a request; None where a parameter is not valid."""
    return rendered_all(() if plan.policy is None else plan.policy.templates, plan.bindings, request)
