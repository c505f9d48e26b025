"""Plain counters, always on: what `statistics()` reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from fastapi_cacheinval.core.outcome import Outcome, Reason
from fastapi_cacheinval.core.route_counts import RouteBook
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.ports.telemetry import Telemetry
from fastapi_cacheinval.telemetry.instruments import Instruments, Requests

__all__ = ["Counters"]


class Counters:
    """Counts in memory what the telemetry port hears, and passes it on to `also`, where there is somebody.

    A count may be one short where two threads count in the same instant; nothing is decided by them.
    """

    __slots__ = (
        "also",
        "details",
        "downstream",
        "dropped_tags",
        "fills",
        "l2_events",
        "look",
        "mutations",
        "provider",
        "purges",
        "refreshes",
        "requests",
        "resets",
        "routes",
    )

    def __init__(self) -> None:
        # Requests are counted by route, the fresh hits of the front lookup inline: they are the hot path.
        self.routes = RouteBook()
        self.dropped_tags = 0
        self.details: Counter[str] = Counter()
        self.fills: Counter[str] = Counter()
        self.refreshes: Counter[str] = Counter()
        self.purges: Counter[str] = Counter()
        self.resets: Counter[str] = Counter()
        self.mutations: Counter[str] = Counter()
        self.downstream: Counter[str] = Counter()
        self.l2_events: Counter[str] = Counter()
        self.also: Telemetry | None = None
        # Where that counts requests, for the front lookup, and whose it is.
        self.requests: Requests | None = None
        self.provider: object = None
        # What looks for somebody to tell who has come late.
        self.look: Callable[[], None] | None = None

    def report_to(self, instruments: Instruments, provider: object) -> None:
        """Pass on what is counted from now on to the instruments of a provider."""
        self.also, self.requests, self.provider = instruments, instruments.requests, provider

    def dropped_tag(self) -> None:
        """A tag with nothing left of it was dropped."""
        self.dropped_tags += 1

    @property
    def hits(self) -> int:
        """The fresh hits of the front lookup."""
        return self.routes.front_hits

    def front_hit(self, stored: StoredResponse) -> None:
        """A fresh hit of the front lookup: `answered` for the most frequent outcome, at half of its cost."""
        stored.counts.front_hits += 1
        if self.requests is not None:
            self.requests.count(stored.route)

    def answered(self, outcome: Outcome, route: str | None) -> None:
        self.routes.of(route).answered(outcome.result)
        if outcome.detail is not None:
            self.details[outcome.detail] += 1
        if self.also is not None:
            self.also.answered(outcome, route)

    def forwarded(self, reason: Reason, route: str | None) -> None:
        if self.look is not None:
            self.look()
        if self.also is not None:
            self.also.forwarded(reason, route)

    def filled(self, seconds: float, route: str | None, outcome: str) -> None:
        self.fills[outcome] += 1
        self.routes.of(route).filled(seconds, failed=outcome == "failed")
        if self.also is not None:
            self.also.filled(seconds, route, outcome)

    def refreshed(self, outcome: str) -> None:
        self.refreshes[outcome] += 1
        if self.also is not None:
            self.also.refreshed(outcome)

    def l2(self, event: str) -> None:
        self.l2_events[event] += 1
        if self.also is not None:
            self.also.l2(event)

    def l2_took(self, operation: str, seconds: float, outcome: str) -> None:
        if self.also is not None:
            self.also.l2_took(operation, seconds, outcome)

    def purged(self, event: str, tags: int, *, soft: bool, seconds: float | None = None) -> None:
        self.purges[event] += 1
        if self.also is not None:
            self.also.purged(event, tags, soft=soft, seconds=seconds)
