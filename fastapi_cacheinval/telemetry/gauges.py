"""Metrics that are read when somebody collects: none of it does I/O."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Protocol
from weakref import WeakKeyDictionary, ref

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from fastapi_cacheinval.core.outcome import Result
from fastapi_cacheinval.core.statistics import Statistics
from fastapi_cacheinval.telemetry.attributes import DETAIL, REASON, RESULT, ROUTE, TIER
from fastapi_cacheinval.telemetry.instruments import Answered, Requests
from fastapi_cacheinval.telemetry.readings import COUNTERS, GAUGES, SUMS, Attributes, Metric, Number, Readings

__all__ = ["Gauges", "Reports", "unwatch", "watch"]


class Reports(Protocol):
    """Something that reports of itself; held weakly by who watches it."""

    def statistics(self) -> Statistics:
        """A snapshot, from memory."""
        ...


class Gauges:
    """The observable instruments of one meter, for all caches of the process that report to it.

    An SDK takes one callback for each name: what may be added up is, of the rest the worst is told.
    """

    def __init__(self, meter: Meter) -> None:
        self._caches: list[ref[Reports]] = []
        # Of each cache the last reading, which counts on when it is gone: a counter does not fall.
        self._last: dict[tuple[str, ref[Reports]], Readings] = {}
        self._gone: dict[str, Counter[Attributes]] = {metric.name: Counter() for metric in COUNTERS}
        self._requests: list[Requests] = []
        for name, description, told in (
            ("cacheinval.requests", "Cacheable requests, by how they were answered.", _by_result),
            ("cacheinval.route.requests", "Cacheable requests, by route.", _by_route),
            ("cacheinval.route.hits", "Those of them that what is stored has answered, by route.", _hits_by_route),
        ):
            read = partial(self._answered, told)
            meter.create_observable_counter(name, [read], unit="{request}", description=description)
        for metric in COUNTERS:
            meter.create_observable_counter(
                metric.name, [partial(self._risen, metric)], unit=metric.unit, description=metric.description
            )
        for make, metrics in (
            (meter.create_observable_up_down_counter, SUMS),
            (meter.create_observable_gauge, GAUGES),
        ):
            for metric in metrics:
                make(metric.name, [partial(self._now, metric)], unit=metric.unit, description=metric.description)

    def add(self, cache: Reports, requests: Requests) -> None:
        """Report this cache as well."""
        self._caches.append(ref(cache, self._let_go))
        self._requests.append(requests)

    def remove(self, cache: Reports) -> None:
        """Report this cache no longer; what it has counted stays counted."""
        for held in [each for each in self._caches if each() is cache]:
            self._let_go(held)

    def _let_go(self, gone: ref[Reports]) -> None:
        self._caches.remove(gone)
        for metric in COUNTERS:
            self._gone[metric.name].update(self._last.pop((metric.name, gone), {}))

    def _here(self) -> Iterator[tuple[ref[Reports], Statistics]]:
        for held in list(self._caches):
            cache = held()
            if cache is not None:
                yield held, cache.statistics()

    def _answered(
        self, told: Callable[[Answered], Attributes | None], options: CallbackOptions
    ) -> Iterable[Observation]:
        totals: Counter[Attributes] = Counter()
        for requests in list(self._requests):
            for answered, count in requests.answered().items():
                attributes = told(answered)
                if attributes is not None:
                    totals[attributes] += count
        return _observed(totals)

    def _risen(self, metric: Metric, options: CallbackOptions) -> Iterable[Observation]:
        totals = Counter(self._gone[metric.name])
        for held, now in self._here():
            self._last[metric.name, held] = readings = metric.read(now)
            totals.update(readings)
        return _observed(totals)

    def _now(self, metric: Metric, options: CallbackOptions) -> Iterable[Observation]:
        found: dict[Attributes, list[Number]] = {}
        for _, now in self._here():
            for attributes, value in metric.read(now).items():
                found.setdefault(attributes, []).append(value)
        return _observed({attributes: metric.joined(values) for attributes, values in found.items()})


def _observed(readings: Mapping[Attributes, Number]) -> list[Observation]:
    return [
        Observation(value, {name: said for name, said in attributes if said is not None})
        for attributes, value in readings.items()
    ]


_HITS = frozenset({Result.HIT, Result.STALE, Result.COLLAPSED})


def _by_result(answered: Answered) -> Attributes:
    result, tier, reason, detail, _ = answered
    why = None if reason is None else reason.value
    return ((RESULT, result.value), (TIER, tier), (REASON, why), (DETAIL, detail))


def _by_route(answered: Answered) -> Attributes:
    return ((ROUTE, answered[-1]),)


def _hits_by_route(answered: Answered) -> Attributes | None:
    return _by_route(answered) if answered[0] in _HITS else None


def unwatch(provider: object, cache: Reports) -> None:
    """Have a cache reported to a provider no longer."""
    with _lock:
        gauges = _gauges.get(provider)
        if gauges is not None:
            gauges.remove(cache)


_lock = threading.Lock()
_gauges: WeakKeyDictionary[object, Gauges] = WeakKeyDictionary()


def watch(provider: object, meter: Meter, cache: Reports, requests: Requests) -> None:
    """Have a cache, and what it counts of requests, reported to the meter of a provider."""
    with _lock:
        gauges = _gauges.get(provider)
        if gauges is None:
            gauges = _gauges[provider] = Gauges(meter)
        gauges.add(cache, requests)
