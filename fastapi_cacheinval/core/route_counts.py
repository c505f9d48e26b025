"""What is counted of each route: plain numbers, written by whatever answers, and read when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi_cacheinval.core.outcome import Result
from fastapi_cacheinval.core.statistics import RouteStatistics, route_label

__all__ = ["MOST_ROUTES", "UNCOUNTED", "RouteBook", "RouteCounts"]

MOST_ROUTES = 1000
"""So many routes are counted each by itself; all others, and what has no route that is known, are one."""


class RouteCounts:
    """The counts of one route. What is stored of the route has this object at hand, so that a hit looks nothing up.

    `front_hits` are the fresh hits of the front lookup, which are counted inline; `results` all other answers.
    `forwards` are those that could be stored, `seconds` what they took, `errors` how many failed. `responses` and
    `size_bytes` are what is kept of the route now.
    """

    __slots__ = ("errors", "forwards", "front_hits", "responses", "results", "seconds", "size_bytes")

    def __init__(self) -> None:
        self.front_hits = 0
        self.results: dict[Result, int] = {}
        self.forwards = 0
        self.errors = 0
        self.seconds = 0.0
        self.responses = 0
        self.size_bytes = 0

    def answered(self, result: Result) -> None:
        """A request was answered so."""
        self.results[result] = self.results.get(result, 0) + 1

    def filled(self, seconds: float, *, failed: bool) -> None:
        """A forward that could be stored has ended after so long."""
        self.forwards += 1
        self.seconds += seconds
        self.errors += failed

    @property
    def used(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self.front_hits or self.results or self.forwards or self.responses)

    @property
    def hits(self) -> int:
        """Fresh hits, of whichever lookup."""
        return self.front_hits + self.results.get(Result.HIT, 0)

    @property
    def saved_seconds(self) -> float:
        """What the hits would have taken, as an estimate: as long as a forward does, on average."""
        return self.hits * self.seconds / self.forwards if self.forwards else 0.0

    def statistics(self) -> RouteStatistics:
        """A snapshot."""
        results = self.results
        return RouteStatistics(
            hits=self.hits,
            stale=results.get(Result.STALE, 0),
            misses=results.get(Result.MISS, 0),
            collapsed=results.get(Result.COLLAPSED, 0),
            bypassed=results.get(Result.BYPASS, 0),
            forwards=self.forwards,
            errors=self.errors,
            forward_seconds=self.seconds,
            saved_seconds=self.saved_seconds,
            responses=self.responses,
            size_bytes=self.size_bytes,
        )


UNCOUNTED = RouteCounts()
"""What a response counts to that is kept nowhere."""


class RouteBook:
    """The counts of all routes, by template; bounded, because a framework may leave anything in place of a template."""

    __slots__ = ("_by_route", "_other")

    def __init__(self) -> None:
        self._other = RouteCounts()
        self._by_route: dict[str | None, RouteCounts] = {None: self._other}

    def of(self, route: str | None) -> RouteCounts:
        """The counts of a route; always the same object for the same route."""
        counts = self._by_route.get(route)
        if counts is not None:
            return counts
        if len(self._by_route) > MOST_ROUTES:
            return self._other
        # In one step: two threads may meet a route at once.
        return self._by_route.setdefault(route, RouteCounts())

    def __iter__(self) -> Iterator[RouteCounts]:
        # A copy is made in one step; another thread may be adding a route.
        return iter(list(self._by_route.values()))

    @property
    def front_hits(self) -> int:
        """The fresh hits of the front lookup, of all routes."""
        return sum(counts.front_hits for counts in self)

    @property
    def saved_seconds(self) -> float:
        """What the hits of all routes would have taken."""
        return sum(counts.saved_seconds for counts in self)

    def total(self, result: Result) -> int:
        """The answers of a kind, of all routes, but for `front_hits`."""
        return sum(counts.results.get(result, 0) for counts in self)

    def statistics(self) -> dict[str, RouteStatistics]:
        """A snapshot of each route that has anything to tell, by its label: GET and the template."""
        found = list(self._by_route.items())
        return {route_label(route): counts.statistics() for route, counts in found if counts.used}
