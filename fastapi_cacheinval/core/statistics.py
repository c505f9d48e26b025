"""What a cache reports of itself."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

from fastapi_cacheinval.core.shadowing import ShadowStatistics

__all__ = [
    "MUTATION_ANSWERS",
    "OTHER_ROUTES",
    "RESET_CAUSES",
    "RouteStatistics",
    "SourceState",
    "Statistics",
    "route_label",
]

RESET_CAUSES = ("start", "new-term", "behind", "conflict")
"""Why everything is given up: a replica joins; the log began anew, has not kept enough, or tells another story."""

MUTATION_ANSWERS = ("done", "queued", "late", "unconfirmed", "refused")
"""What is said of a mutation's purge."""


@dataclass(frozen=True, slots=True)
class SourceState:
    """How something that is attached to a cache stands: where events come from, or where purges go.

    `running` is whether its task runs, `connected` whether it is in touch with its system. Counts are since it was
    made: `received` of what came, `done` of what was seen through to its end, `refused` of what could not be read and
    was passed, `failures` of attempts that failed and are made again. `waiting` is what has come and is not done, `lag`
    what is known to wait outside, None where that is not known; `trouble` is the last failure, empty when all is well.
    `ignored` is how many events came of what nothing maps, by its name: a table of `debezium()`.
    """

    running: bool = False
    connected: bool = False
    received: int = 0
    done: int = 0
    refused: int = 0
    failures: int = 0
    waiting: int = 0
    lag: int | None = None
    trouble: str = ""
    ignored: Mapping[str, int] = field(default_factory=dict[str, int])


OTHER_ROUTES = "(other)"
"""In `Statistics.routes`: requests of which no route is known, and of the routes after the first thousand."""


def route_label(route: str | None) -> str:
    """What a route's GET is called wherever one is told of; `route` is its template, None where none is known."""
    return OTHER_ROUTES if route is None else f"GET {route}"


@dataclass(frozen=True, slots=True)
class RouteStatistics:
    """What one cached route did in this process, since the cache was made.

    `hits`, `stale`, `misses`, `collapsed` and `bypassed` are requests by how they were answered. `forwards` are the
    calls of its handler that could be stored, those in the background included; `errors` counts those that failed, and
    `forward_seconds` is what all of them took. `saved_seconds` estimates what `hits` would have taken: each as long as
    a forward does on average. `responses` and `size_bytes` are what is kept of it in this process now.
    """

    hits: int = 0
    stale: int = 0
    misses: int = 0
    collapsed: int = 0
    bypassed: int = 0
    forwards: int = 0
    errors: int = 0
    forward_seconds: float = 0.0
    saved_seconds: float = 0.0
    responses: int = 0
    size_bytes: int = 0

    @property
    def requests(self) -> int:
        """All requests."""
        return self.hits + self.stale + self.misses + self.collapsed + self.bypassed


@dataclass(frozen=True, slots=True)
class Statistics:
    """A snapshot of one cache in one process; counts are since it was made.

    `responses` and `size_bytes` are what is kept now, `max_bytes` the bound. `hits` to `bypassed` are
    answers by kind; `fills`, `refreshes` and `purges` count by outcome; `refused` says why responses
    were not stored; `dropped_tags` counts tags with nothing left of them. `forwards_under_way` and
    `refreshing` are now. `term`, `applied` and `generation` are the replica's place in the log,
    `lease_remaining` the seconds for which it may trust its copy, `connected` whether it is in touch with the
    log, `lag` the lines that it knows to exist and has not applied, `queue_length` the purges that have no number yet,
    `resets` how often everything had to be given up; `l2` counts what L2 did, `downstream` the answers
    that a CDN in front was forbidden to keep because it could not be told all it needs, by reason. `sources` is the
    state of what is attached, by name: a `SourceState`, or the object itself where it has none.

    `waiting` requests wait for another's forward now, here or on another replica; `max_refreshes` is the bound of
    `refreshing`. `queue_age` is for how many seconds the oldest queued purge has waited, `fences` how many purges
    that have no number yet forbid what is kept. `reset_causes` says why everything had to be given up, `mutations`
    how those that purge were answered: `done`, `queued`, `late`, `unconfirmed` or `refused`.

    `routes` is the same by route, `GET /products/{product_id}` say: the first thousand that were asked, and `(other)`
    for all else. `shadow` is what came of making hits again, to compare.
    """

    enabled: bool
    responses: int
    aliases: int
    size_bytes: int
    max_bytes: int
    evicted: int
    reclaimed: int
    in_flight_bytes: int
    hits: int
    stale: int
    misses: int
    collapsed: int
    bypassed: int
    fills: Mapping[str, int]
    refused: Mapping[str, int]
    refreshes: Mapping[str, int]
    purges: Mapping[str, int]
    dropped_tags: int
    forwards_under_way: int
    refreshing: int
    term: int
    applied: int
    generation: int
    lease_remaining: float
    connected: bool
    lag: int
    queue_length: int
    resets: int
    l2: Mapping[str, int]
    downstream: Mapping[str, int]
    sources: Mapping[str, object]
    waiting: int = 0
    max_refreshes: int = 0
    queue_age: float = 0.0
    fences: int = 0
    reset_causes: Mapping[str, int] = field(default_factory=dict[str, int])
    mutations: Mapping[str, int] = field(default_factory=dict[str, int])
    routes: Mapping[str, RouteStatistics] = field(default_factory=dict[str, RouteStatistics])
    shadow: ShadowStatistics = field(default_factory=ShadowStatistics)

    @property
    def far(self) -> Mapping[str, int]:
        """The old name of `l2`, for one release."""
        warnings.warn("Statistics.far is Statistics.l2 now.", DeprecationWarning, stacklevel=2)
        return self.l2
