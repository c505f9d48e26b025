"""The routes of all replicas together, as their summaries tell of them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from fastapi_cacheinval.core.fleet import Fleet
from fastapi_cacheinval.core.statistics import RouteStatistics

__all__ = ["RouteTraffic", "traffic"]


@dataclass(frozen=True, slots=True)
class RouteTraffic:
    """One route on all replicas: requests per second since their last summaries, and the sum of what they count."""

    route: str
    rate: float
    counts: RouteStatistics

    @property
    def mean_forward(self) -> float | None:
        """How long a forward takes on average, in seconds; None where there was none."""
        return self.counts.forward_seconds / self.counts.forwards if self.counts.forwards else None


def traffic(fleet: Fleet) -> list[RouteTraffic]:
    """All routes, the busiest first; routes at rest by how often they were asked.

    The summary of a replica without a lease may be old: its counts are added, and its rates are not.
    """
    found: dict[str, list[RouteStatistics]] = {}
    rates: dict[str, float] = {}
    for replica in fleet.replicas:
        if replica.summary is None:
            continue
        for route, counts in replica.summary.statistics.routes.items():
            found.setdefault(route, []).append(counts)
            if replica.live:
                rates[route] = rates.get(route, 0.0) + replica.summary.rates.get(route, 0.0)
    rows = [RouteTraffic(route, rates.get(route, 0.0), _sum(counts)) for route, counts in found.items()]
    return sorted(rows, key=lambda row: (-row.rate, -row.counts.requests, row.route))


def _sum(all_counts: list[RouteStatistics]) -> RouteStatistics:
    return RouteStatistics(
        **{field.name: sum(getattr(each, field.name) for each in all_counts) for field in fields(RouteStatistics)}
    )
