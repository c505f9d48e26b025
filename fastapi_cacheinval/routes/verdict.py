"""Whether a route's responses may be shared, by what its tree and its class read of the caller."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fastapi.routing import APIRoute

from fastapi_cacheinval.core.policy import CachePolicy
from fastapi_cacheinval.dependencies import Cached
from fastapi_cacheinval.routes.advice import Advice, advice
from fastapi_cacheinval.routes.covers import Uncovered, uncovered
from fastapi_cacheinval.routes.dependency_tree import Node
from fastapi_cacheinval.routes.endpoint_calls import put_over
from fastapi_cacheinval.routes.fastapi_private import EffectiveRoute, handler_places, original_of
from fastapi_cacheinval.routes.middleware_stack import AROUND, INSTEAD, around
from fastapi_cacheinval.routes.own_code import is_frameworks
from fastapi_cacheinval.routes.parameters import caller_reads, sees_request
from fastapi_cacheinval.routes.place import Place
from fastapi_cacheinval.routes.plan import Sharing

__all__ = ["Verdict", "front_off", "goes_on_after_the_answer", "judge", "own_methods"]

# Each of these stands between a route's hook and its handler.
_SEEING = ("get_route_handler", "handle")
# Each of these sees the request, or wraps what does.
_HANDLING = ("__init__", "__call__", "get_route_handler", "handle", "matches")
_ROUTE, _HANDED = "the route: ", ", which is handed the raw request"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How far a route's responses may be shared, and what speaks against it.

    `lacking` is what the covers leave uncovered, `helpless` what no cover helps against, `around` what of the route
    itself is handed the raw request and cannot be worked behind; the latter two as `where: what`. `layers` is what of
    the route itself the cache works behind.
    """

    sharing: Sharing
    lacking: tuple[Uncovered, ...]
    helpless: tuple[str, ...]
    around: tuple[str, ...]
    layers: tuple[str, ...]

    @property
    def evidence(self) -> tuple[str, ...]:
        """All that speaks against it, each as `where: what`."""
        lines = dict.fromkeys(line for each in self.lacking for line in each.evidence)
        return (*self.helpless, *self.around, *lines)

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
    around_it = () if policy is None else tuple(_around_the_handler(route))
    if around_it and any(True for _ in handler_places(route)):
        layers, around_it = tuple(each.removeprefix(_ROUTE).removesuffix(_HANDED) for each in around_it), ()
    else:
        layers = ()
    proved = not (lacking or helpless or around_it)
    return Verdict(_sharing(policy, root, proved=proved), lacking, helpless, around_it, layers)


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


def own_methods(thing: object, stock: type, names: tuple[str, ...]) -> str | None:
    """The methods of an object, of its own or of its class, that are not the framework's, in words."""
    kind = type(thing)
    own: list[str] = []
    for name in names:
        method = getattr(stock, name, None)
        stands = getattr(kind, name, None) is method and (method is None or is_frameworks(method))
        if not stands or put_over(thing, name) is not None:
            own.append(name)
    return f"{kind.__module__}.{kind.__qualname__} has its own {'(), '.join(own)}()" if own else None


def _around_the_handler(route: EffectiveRoute) -> Iterator[str]:
    """What of the route itself is handed the raw request before or instead of its handler, as `where: what`."""
    original = original_of(route)
    put = [name for name in _SEEING if put_over(original, name) is not None]
    for name in put:
        yield f"{_ROUTE}its {name}() is replaced{_HANDED}"
    own = own_methods(original, APIRoute, tuple(name for name in _SEEING if name not in put))
    if own is not None:
        yield f"{_ROUTE}{own}{_HANDED}"
    for what in around(route):
        # A handler of the route's own making is what its method makes.
        if not what.endswith(INSTEAD) or (own is None and not put):
            yield f"{_ROUTE}{what}{_HANDED}"


def goes_on_after_the_answer(route: EffectiveRoute) -> bool:
    """Whether what is the route's own has the request in its hands when the answer has gone, and may commit then."""
    wrapped = any(what.endswith(AROUND) for what in around(route))
    return wrapped or own_methods(original_of(route), APIRoute, ("handle",)) is not None
