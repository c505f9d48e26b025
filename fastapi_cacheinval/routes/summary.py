"""What an operator sees of the routes at the start.

In two lines what is cached, how, and what turned the front lookup off; and the tags that a mutation purges and no
cached route declares: `product:` here, `products:` there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from fastapi_cacheinval.core.tags import TagTemplate
from fastapi_cacheinval.core.words import few
from fastapi_cacheinval.routes.plan import RoutePlan
from fastapi_cacheinval.routes.tag_shapes import lonely, shape_of

__all__ = ["summary", "unmatched_tags"]

_NAMED = 3


def _how(plan: RoutePlan) -> str:
    if plan.policy is None:
        return ""
    if plan.policy.partition:
        return "partitioned"
    if plan.policy.guards:
        return "guarded"
    return "front" if plan.front else "route"


def _routes(count: int) -> str:
    return f"{count} route{'' if count == 1 else 's'}"


def summary(plans: Sequence[RoutePlan], off: str | None, plain: int) -> list[str]:
    """The lines; a single one where nothing turned the front lookup off.

    `off` is what turned it off for the whole app, `plain` counts routes of Starlette's own. Ways of caching: `front`
    before routing, `route` behind it, `partitioned` and `guarded` with a cover that runs on every request.
    """
    cached = [plan for plan in plans if plan.policy is not None]
    counted = Counter(map(_how, cached))
    kinds = ", ".join(f"{counted[kind]} {kind}" for kind in ("front", "route", "partitioned", "guarded"))
    first = f"{len(cached)} of {_routes(len(plans))} cached" + (f": {kinds}." if cached else ".")
    if plain:
        first += (
            f" {_routes(plain)} of Starlette's own cannot declare cached(): "
            "CacheMiddleware(..., honour_headers=True) caches by what their responses say."
        )
    if not cached:
        off_by_policy = [plan.path for plan in plans if plan.switched_off]
        if off_by_policy:
            return [f"{first} cached() is switched off (ttl=0) for {few(off_by_policy, _NAMED)}."]
        return [f"{first} Declare it: @app.get(..., dependencies=[cached(ttl=60)])." if plans else first]
    if off is not None:
        return [first, f"The front lookup is off for the whole app: {off}."]
    reasons: dict[str, list[str]] = {}
    for plan in cached:
        if not plan.front:
            reasons.setdefault(plan.front_off or "", []).append(plan.path)
    told = "; ".join(f"{few(paths, _NAMED)}: {reason}" for reason, paths in reasons.items())
    return [first, *([f"The front lookup is off for {told}."] if told else [])]


def unmatched_tags(plans: Sequence[RoutePlan], *, more: bool = False) -> Iterator[str]:
    """A warning for each tag that nothing carries, with the one that may have been meant.

    Nothing is said of an app that caches nothing, and of tags unlike all others where no template says all of them:
    handlers add some by `CacheTags`, or there are `more` in headers.
    """
    cached = [plan for plan in plans if plan.policy is not None]
    if not cached:
        return
    declared = {shape_of(each): each.text for plan in cached if plan.policy for each in plan.policy.templates}
    purges = {
        (f"{'/'.join(sorted(plan.methods))} {plan.path}", template): shape_of(template)
        for plan in plans
        for found in plan.invalidations
        for template in found.templates
    }
    more = more or any(plan.adds_tags for plan in cached)
    meant = dict(lonely(dict.fromkeys(purges.values()), declared, more=more))
    for (route, template), shape in purges.items():
        if shape not in meant:
            continue
        near = meant[shape]
        if near is not None:
            yield (
                f"{route} purges {template.text!r}, which no cached route declares. Write "
                f"{_spelled_as(declared[near], template)!r} in one of the two places if {declared[near]!r} "
                "is meant."
            )
        else:
            yield (
                f"{route} purges {template.text!r}, which no cached route declares. Declare it where it is read: "
                f"cached(..., tags=[{template.text!r}])."
            )


def _spelled_as(declared: str, template: TagTemplate) -> str:
    """The declared tag with the names of the route that purges, where they are as many."""
    names = list(template.names)
    found = TagTemplate.parse(declared)
    if len(found.names) != len(names):
        return declared
    return "".join(literal + (f"{{{names.pop(0)}}}" if name is not None else "") for literal, name in found.parts)
