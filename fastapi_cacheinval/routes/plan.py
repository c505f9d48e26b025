"""What is known of a route before any request: its inputs, its policy, and how far its responses may be shared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from fastapi_cacheinval.core.policy import CachePolicy
from fastapi_cacheinval.core.statistics import route_label
from fastapi_cacheinval.dependencies import Cached, Invalidates
from fastapi_cacheinval.routes.bindings import Binding

__all__ = ["LOOKED_UP", "SAFE_METHODS", "RoutePlan", "Sharing"]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "QUERY", "PROPFIND", "REPORT", "SEARCH"})
LOOKED_UP = frozenset({"GET", "HEAD"})


class Sharing(Enum):
    """Why a route's response may be handed to another caller, or that it may not."""

    PROVED = auto()
    """Nothing in the route's tree can tell callers apart."""
    COVERED = auto()
    """What can is in the key as a partition, or is a guard that runs on every request."""
    DECLARED = auto()
    """The author's word, `shared=True`."""
    UNPROVED = auto()
    """It may not be cached."""


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """One route of the app as the cache sees it; a router included twice has two plans per route.

    - `path`: its template, with the prefixes of mounts and includes.
    - `methods`: those that it answers.
    - `policy`: the innermost `cached()`'s; None where there is none, it is off, or GET is not answered.
    - `cached`: the callable whose call is the lookup; the outer ones are inert.
    - `sharing`, and `uncovered`, the evidence against sharing, each as `where: what`.
    - `asks_who`: whether its handler or a dependency declares what may tell callers apart.
    - `query`: the query parameters that anything in the tree may read; None stands for all.
    - `headers`: the handler's own `Header()` fields, lower-case and sorted: a part of the variant; with
      `CORSMiddleware` on the way, `origin` as well.
    - `endpoint`: the qualified name of the handler, with its module.
    - `identity`: what the route is in every process that serves the same app, see `route_identity`.
    - `ordinal`: 0 where the identity is the route's alone. Any other number is this process's and tells it from its
      twins: above 0 for routes that were there at the start, below for others.
    - `terms`: what the policy says of what is stored, as a part of the key, see `policy_terms`.
    - `covered_by`: the names of the dependencies that give the partition, and of the guards, see `cover_names`.
    - `nameless`: 0, or a number of this process's: a partition or a guard has no name of its own, so that another
      release may have something else under the same names.
    - `private`: whether its answers are for some callers alone: its innermost `cached()` has a partition or a guard,
      be it switched off or not.
    - `switched_off`: whether GET is answered and its innermost `cached()` stores nothing, as with `ttl=0`.
    - `sees_request`: whether the handler, or what stands around it, is handed the raw request, and with it the path as
      it was sent.
    - `elsewhere`: the `Path()` parameters, by their names in the request, that the path does not hold: a layer
      outside, a host or a route class gives them.
    - `front`: whether the front lookup may serve it; `front_off` says why not.
    - `bindings`: for every name in a tag template that applies, how to get its validated value.
    - `invalidations`: every `invalidates()` in the tree that an inner `invalidates_nothing()` does not undo, where an
      unsafe method is answered.
    - `only_reads`: whether the innermost of those says that its unsafe methods purge nothing.
    - `adds_tags`: whether the handler, or a dependency, adds tags of its own by `CacheTags`.
    - `layers`: what stands between the middleware and the route and is not known to leave responses as they are.
    - `around`: what the route itself puts around its handler: its class, or what its `app` is wrapped in.
    - `commits_late`: whether a `yield` dependency exits, and so commits, after the response is sent, or a
      middleware on the way might.
    - `epoch`: 0, or a number of this process's that stands for one set of dependency overrides.
    - `provider`: what holds `dependency_overrides`, if anything.
    """

    path: str
    methods: frozenset[str]
    policy: CachePolicy | None
    cached: Cached | None
    sharing: Sharing
    uncovered: tuple[str, ...]
    asks_who: bool
    query: frozenset[str] | None
    headers: tuple[bytes, ...]
    endpoint: str
    identity: tuple[bytes, ...]
    ordinal: int
    terms: bytes
    covered_by: tuple[bytes, ...]
    nameless: int
    private: bool
    switched_off: bool
    sees_request: bool
    elsewhere: tuple[str, ...]
    front: bool
    front_off: str | None
    bindings: Mapping[str, Binding]
    invalidations: tuple[Invalidates, ...]
    only_reads: bool
    adds_tags: bool
    layers: tuple[str, ...]
    around: tuple[str, ...]
    commits_late: bool
    epoch: int
    provider: Any

    @property
    def decides(self) -> bool:
        """Whether a `cached()`, be it switched off, decides what becomes of its GETs, and not their headers."""
        return self.cached is not None or self.switched_off

    @property
    def label(self) -> str:
        """What it is called where its declaration is told of."""
        return f"{'/'.join(sorted(self.methods))} {self.path}"

    @property
    def get_label(self) -> str:
        """What its GET is called wherever one is told of."""
        return route_label(self.path)

    @property
    def mutation_label(self) -> str:
        """What its unsafe methods are called."""
        return f"{'/'.join(sorted(self.methods - SAFE_METHODS))} {self.path}"

    @property
    def purges_paths(self) -> bool:
        """Whether an unsafe request purges its target path, its parent collection and the paths it names."""
        return not self.only_reads and all(each.paths for each in self.invalidations)

    @property
    def layered(self) -> bool:
        """Whether the cache must work behind the layers: what they write may be for one caller alone."""
        return bool(self.layers or self.around) and self.policy is not None and self.sharing is not Sharing.DECLARED

    @property
    def known_everywhere(self) -> bool:
        """Whether every process that serves the app knows this plan by the same key, so that replicas may share."""
        return not (self.ordinal or self.epoch or self.nameless)
