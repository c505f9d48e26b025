"""What is counted, as OpenTelemetry metrics through the API.

An SDK keeps a bounded number of series for each metric (2,000 by default) and adds up the rest without attributes. So
the route stands alone, on metrics of its own: what says how requests were answered keeps its few series however many
routes there are.
"""

from __future__ import annotations

from collections import Counter

from opentelemetry.metrics import Histogram, Meter

from fastapi_cacheinval.core.outcome import Outcome, Reason, Result
from fastapi_cacheinval.telemetry.attributes import EVENT, OPERATION, OUTCOME, REASON, ROUTE, SOFT
from fastapi_cacheinval.telemetry.tallies import Tally

__all__ = ["Answered", "Instruments", "Requests"]


# A plain tuple: it is made for every request.
Answered = tuple[Result, str | None, Reason | None, str | None, str | None]
"""How a request was answered: result, tier, reason, detail and route."""


class Requests(Tally[Answered | str | None]):
    """How requests were answered; a front hit by its route alone, since a text knows its hash and a tuple does not."""

    def answered(self) -> dict[Answered, int]:
        """What was counted up to now."""
        found: Counter[Answered] = Counter()
        for key, count in self.totals().items():
            found[key if isinstance(key, tuple) else (Result.HIT, "l1", None, None, key)] += count
        return found


# Seconds. What a fill takes is what the semantic conventions have for requests; a purge takes a thousandth of that.
_FILLS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_PROPAGATION = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
_STALENESS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)


def _seconds(meter: Meter, name: str, description: str, buckets: tuple[float, ...]) -> Histogram:
    try:
        return meter.create_histogram(
            name, unit="s", description=description, explicit_bucket_boundaries_advisory=buckets
        )
    except TypeError:
        # An API from before there was such advice.
        return meter.create_histogram(name, unit="s", description=description)


def _at(route: str | None) -> dict[str, str]:
    return {} if route is None else {ROUTE: route}


class Instruments:
    """The counters and histograms of the telemetry port."""

    def __init__(self, meter: Meter) -> None:
        # On the path of every hit, where an SDK's counter would take more time than the rest: `Gauges` collects it.
        self.requests = Requests()
        self._forwards = meter.create_counter(
            "cacheinval.forwards", unit="{request}", description="Requests and refreshes that went on to the app."
        )
        self._fills = meter.create_counter(
            "cacheinval.fills", unit="{request}", description="Forwards that could be stored, by how they ended."
        )
        self._refreshes = meter.create_counter(
            "cacheinval.refreshes", unit="{refresh}", description="Background refreshes that ended."
        )
        self._purges = meter.create_counter(
            "cacheinval.invalidations", unit="{purge}", description="Purges, by what became of them here."
        )
        self._l2 = meter.create_counter(
            "cacheinval.l2.events", unit="{event}", description="What came of reading and writing L2."
        )
        self._l2_calls = _seconds(
            meter, "cacheinval.l2.duration", "How long one read or write of L2 took.", _PROPAGATION
        )
        self._filling = _seconds(
            meter, "cacheinval.fill.duration", "How long a forward took that could be stored.", _FILLS
        )
        self._staleness = _seconds(
            meter, "cacheinval.staleness", "For how long a response that was served stale had been so.", _STALENESS
        )
        self._propagation = _seconds(
            meter,
            "cacheinval.propagation.duration",
            "From the log's taking a purge to its being applied here, by the server's clock as it is estimated here.",
            _PROPAGATION,
        )

    def answered(self, outcome: Outcome, route: str | None) -> None:
        # By place: an outcome's fields are in this order, and a hit has no time to name them.
        self.requests.count((outcome[0], outcome[1], outcome[2], outcome[7], route))
        if outcome[0] is Result.STALE:
            self._staleness.record(outcome.overdue, _at(route))

    def forwarded(self, reason: Reason, route: str | None) -> None:
        self._forwards.add(1, {REASON: reason.value})

    def filled(self, seconds: float, route: str | None, outcome: str) -> None:
        self._fills.add(1, {OUTCOME: outcome})
        self._filling.record(seconds, _at(route))

    def refreshed(self, outcome: str) -> None:
        self._refreshes.add(1, {OUTCOME: outcome})

    def l2(self, event: str) -> None:
        self._l2.add(1, {EVENT: event})

    def l2_took(self, operation: str, seconds: float, outcome: str) -> None:
        self._l2_calls.record(seconds, {OPERATION: operation, OUTCOME: outcome})

    def purged(self, event: str, tags: int, *, soft: bool, seconds: float | None = None) -> None:
        self._purges.add(1, {EVENT: event, SOFT: soft})
        if seconds is not None:
            self._propagation.record(seconds)
