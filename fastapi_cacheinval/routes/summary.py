"""What an operator sees at the start, in two lines: what is cached and how, and what turned the front lookup off."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fastapi_cacheinval.core.words import few
from fastapi_cacheinval.routes.plan import RoutePlan

__all__ = ["summary"]

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
