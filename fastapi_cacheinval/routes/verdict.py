"""Whether a route's responses may be shared, by what its tree and its class read of the caller."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi.routing import APIRoute

from fastapi_cacheinval.core.policy import CachePolicy
from fastapi_cacheinval.dependencies import Cached
from fastapi_cacheinval.routes.advice import Advice, advice
from fastapi_cacheinval.routes.covers import Uncovered, uncovered
from fastapi_cacheinval.routes.dependency_tree import Node
from fastapi_cacheinval.routes.evidence import Cause, Evidence
from fastapi_cacheinval.routes.fastapi_private import EffectiveRoute, handler_places, original_of
from fastapi_cacheinval.routes.parameters import caller_reads, sees_request
from fastapi_cacheinval.routes.place import Place
from fastapi_cacheinval.routes.plan import Sharing
from fastapi_cacheinval.routes.route_layers import around_the_handler, goes_on_after_the_answer, own_methods

__all__ = ["Verdict", "front_off", "judge"]

# Each of these sees the request, or wraps what does.
_HANDLING = ("__init__", "__call__", "get_route_handler", "handle", "matches")


@dataclass(frozen=True, slots=True)
class Verdict:
    """How far a route's responses may be shared, and what speaks against it.

    `lacking` is what the covers leave uncovered, `helpless` what no cover helps against, `around` what of the route
    itself is handed the raw request and cannot be worked behind. `layers` is what of the route itself the cache works
    behind, by name, and `goes_on` says whether some of that has the request in its hands after the answer. `matches`
    says whether the route finds by a method of its own that it is meant.
    """

    sharing: Sharing
    lacking: tuple[Uncovered, ...]
    helpless: tuple[Evidence, ...]
    around: tuple[Evidence, ...]
    layers: tuple[str, ...]
    goes_on: bool
    matches: bool

    @property
    def evidence(self) -> tuple[str, ...]:
        """All that speaks against it, each as `where: what`."""
        lacking = dict.fromkeys(evidence for each in self.lacking for evidence in each.evidence)
        return tuple(map(str, (*self.helpless, *self.around, *lacking)))

    def trails(self, root: Node) -> tuple[str, ...]:
        """The ways from the handler to what reads the caller, by name."""
        return tuple(dict.fromkeys(trail for each in self.lacking for trail in each.trails(root)))

    def advice(self, root: Node, cached: Cached | None) -> Advice:
        """Why the covers that are given fall short, and what to write."""
        return advice(root, cached, self.lacking, (*self.helpless, *self.around))


def judge(route: EffectiveRoute, root: Node, cached: Cached | None) -> Verdict:
    """Look at a route under the `cached()` that counts; without one nothing is shared."""
    policy = None if cached is None else cached.policy
    lacking, helpless = uncovered(root, cached)
    layers = () if policy is None else tuple(around_the_handler(route))
    refused: tuple[Evidence, ...] = ()
    if layers and not any(True for _ in handler_places(route)):
        handed = (f"{each}, which is handed the raw request" for each in layers)
        layers, refused = (), tuple(Evidence("the route", each, Cause.ROUTE) for each in handed)
    proved = not (lacking or helpless or refused)
    sharing = _sharing(policy, root, proved=proved)
    matches = own_methods(original_of(route), APIRoute, ("matches",)) is not None
    return Verdict(sharing, lacking, helpless, refused, layers, goes_on_after_the_answer(route), matches)


def _sharing(policy: CachePolicy | None, root: Node, *, proved: bool) -> Sharing:
    if policy is not None and policy.shared:
        return Sharing.DECLARED
    if not proved:
        return Sharing.UNPROVED
    word = policy is not None and policy.request_is_shared and sees_request(root)
    return Sharing.COVERED if policy is not None and (policy.partition or policy.guards or word) else Sharing.PROVED


def front_off(
    route: EffectiveRoute,
    root: Node,
    place: Place,
    verdict: Verdict,
    policy: CachePolicy | None,
    elsewhere: frozenset[str],
    *,
    overridden: bool,
) -> str | None:
    """What keeps the front lookup from answering; None where nothing does, or nothing is cached."""
    if policy is None:
        return None
    off = _closed(policy, verdict.sharing, root) or ("dependencies are overridden" if overridden else None)
    # What on the way to the route a hit would skip.
    off = off or own_methods(original_of(route), APIRoute, _HANDLING) or _skipped(verdict) or place.front_off
    if off is None and elsewhere:
        return f"the path does not hold the Path() parameter {min(elsewhere)!r}"
    return off


def _skipped(verdict: Verdict) -> str | None:
    """What stands around the route's handler, by whatever way it came there."""
    return next((f"{each} would be skipped by a hit" for each in (*verdict.layers, *verdict.around)), None)


def _closed(policy: CachePolicy, sharing: Sharing, root: Node) -> str | None:
    """What in the route itself keeps its responses from being served before routing."""
    if policy.partition or policy.guards:
        return "partition_by and guarded_by run on every request"
    if sharing is Sharing.UNPROVED:
        return "its responses may not be shared"
    for node in root.walk():
        if node is not root and (reads := caller_reads(node, handler=False)):
            return f"shared=True does not open it while {reads[0]}"
    return None
