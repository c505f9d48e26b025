"""What a replica leaves in Redis for people and tools: its statistics, its place in the log, its busiest routes.

No purge and no answer depends on a summary. It is bounded: many names become few, and long ones are cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from heapq import nlargest
from typing import Any, NamedTuple

from fastapi_cacheinval.core.statistics import RouteStatistics, SourceState, Statistics
from fastapi_cacheinval.core.words import cut

__all__ = ["MOST_APPLIED", "MOST_NAMES", "MOST_ROUTES", "AppliedPurge", "ReplicaSummary", "rates", "shortened"]

MOST_NAMES = 16
"""How many names a summary has of each count that is kept by name: the largest."""

MOST_ROUTES = 24
"""How many routes a summary has: the busiest since the last one, and then those that were asked most."""

MOST_APPLIED = 32
"""How many purges a summary has: those that the replica applied last."""

_LONGEST_NAME = 96
_MOST_APPS = 8


class AppliedPurge(NamedTuple):
    """A purge of another process that a replica has applied.

    `seconds` is how long after the log took it, estimated from the log's clock; None where that is not known. `late` is
    True where its message had not come and a heartbeat brought it.
    """

    term: int
    seq: int
    seconds: float | None
    late: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSummary:
    """One replica as it saw itself.

    `replica` is its id in the log, `host` and `pid` its process, `package` the version of this package, `release` the
    `version` setting, `apps` the titles of the apps that it serves. `uptime` is since its cache was started,
    `every` the time between two summaries, `bound` its `staleness_bound`, all in seconds.
    `confirm_replicas` is how many replicas of the server have to acknowledge what it writes to the log. `statistics`
    has its names cut to `MOST_NAMES`, and the busiest `MOST_ROUTES` routes. `rates` are their requests per second since
    the last summary, `routes_left_out` is how many routes it counts beside those. `applied` are the purges of others
    that it applied last, the newest last.
    """

    replica: str
    host: str
    pid: int
    package: str
    release: str = ""
    apps: tuple[str, ...] = ()
    uptime: float = 0.0
    every: float = 0.0
    bound: float = 0.0
    confirm_replicas: int = 0
    statistics: Statistics
    rates: Mapping[str, float] = field(default_factory=dict[str, float])
    routes_left_out: int = 0
    applied: tuple[AppliedPurge, ...] = ()

    @property
    def process(self) -> str:
        """The process as lines of the log name it: host/pid."""
        return f"{self.host}/{self.pid}"


def rates(routes: Mapping[str, RouteStatistics], before: Mapping[str, int], seconds: float) -> dict[str, float]:
    """Requests per second by route, since the counts `before`; without routes at rest, and empty for no time."""
    more = {route: counts.requests - before.get(route, 0) for route, counts in routes.items()}
    return {route: count / seconds for route, count in more.items() if count > 0} if seconds > 0 else {}


def shortened(summary: ReplicaSummary, names: int = MOST_NAMES, routes: int = MOST_ROUTES) -> ReplicaSummary:
    """A summary with at most so many names of each kind and so many routes, each cut to 96 characters."""
    statistics = summary.statistics
    busiest = nlargest(
        routes, statistics.routes.items(), key=lambda item: (summary.rates.get(item[0], 0.0), item[1].requests)
    )
    counts: dict[str, Any] = {
        name: _largest(getattr(statistics, name), names)
        for name in ("fills", "refused", "refreshes", "purges", "l2", "downstream", "reset_causes", "mutations")
    }
    shadow = replace(statistics.shadow, different_by_route=_largest(statistics.shadow.different_by_route, names))
    sources = {_cut(name): _source(state) for name, state in list(statistics.sources.items())[:names]}
    return replace(
        summary,
        host=_cut(summary.host),
        release=_cut(summary.release),
        apps=tuple(map(_cut, summary.apps[:_MOST_APPS])),
        statistics=replace(
            statistics, **counts, shadow=shadow, sources=sources, routes={_cut(route): kept for route, kept in busiest}
        ),
        rates={_cut(route): summary.rates[route] for route, _ in busiest if route in summary.rates},
        routes_left_out=summary.routes_left_out + len(statistics.routes) - len(busiest),
        applied=summary.applied[-MOST_APPLIED:],
    )


def _largest(counts: Mapping[str, int], most: int) -> dict[str, int]:
    return {_cut(name): count for name, count in nlargest(most, counts.items(), key=lambda item: item[1])}


def _source(state: object) -> SourceState:
    """How a source stands, without what grows with what it reads."""
    if not isinstance(state, SourceState):
        return SourceState(running=True)
    return replace(state, trouble=_cut(state.trouble), ignored={})


def _cut(text: str) -> str:
    return cut(text, _LONGEST_NAME)
