"""Metrics that are read when somebody collects: none of it does I/O."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from math import inf
from typing import NamedTuple, Protocol
from weakref import WeakKeyDictionary, ref

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from fastapi_cacheinval.core.outcome import Result
from fastapi_cacheinval.core.statistics import SourceState, Statistics
from fastapi_cacheinval.telemetry.attributes import CAUSE, DETAIL, EVENT, OUTCOME, REASON, RESULT, ROUTE, SOURCE, TIER
from fastapi_cacheinval.telemetry.instruments import Answered
from fastapi_cacheinval.telemetry.tallies import Tally

__all__ = ["Gauges", "Reports", "unwatch", "watch"]

Number = int | float
Attributes = tuple[tuple[str, str | None], ...]
Readings = dict[Attributes, Number]
_NONE: Attributes = ()


class Reports(Protocol):
    """Something that reports of itself; held weakly by who watches it."""

    def statistics(self) -> Statistics:
        """A snapshot, from memory."""
        ...


class _Metric(NamedTuple):
    """Name, unit, description, what reads it of one cache, and how the readings of several become one."""

    name: str
    unit: str
    description: str
    read: Callable[[Statistics], Readings]
    joined: Callable[[list[Number]], Number] = sum


def _one(read: Callable[[Statistics], Number]) -> Callable[[Statistics], Readings]:
    return lambda now: {_NONE: read(now)}


# -- what is read of a cache ---------------------------------------------------------------------


def _by(attribute: str, counts: Iterable[tuple[str, int]]) -> Readings:
    return {((attribute, name),): count for name, count in counts}


def _lease(now: Statistics) -> Readings:
    # A log in one process has none.
    return {} if now.lease_remaining == inf else {_NONE: max(0.0, now.lease_remaining)}


def _sources(now: Statistics) -> Iterator[tuple[Attributes, SourceState]]:
    for name, state in now.sources.items():
        if isinstance(state, SourceState):
            yield ((SOURCE, name),), state


def _source_events(now: Statistics) -> Readings:
    found: Readings = {}
    for name, state in _sources(now):
        for event in ("received", "done", "refused"):
            found[(*name, (EVENT, event))] = getattr(state, event)
        found[(*name, (EVENT, "failed"))] = state.failures
    return found


# What only rises.
_COUNTERS = (
    _Metric(
        "cacheinval.l1.evictions",
        "{response}",
        "Stored responses let go of, for room or because they were past all use.",
        lambda now: _by(CAUSE, (("room", now.evicted), ("expired", now.reclaimed))),
    ),
    _Metric(
        "cacheinval.resets",
        "{reset}",
        "How often everything that was kept had to be given up.",
        lambda now: _by(CAUSE, now.reset_causes.items()),
    ),
    _Metric(
        "cacheinval.mutations",
        "{request}",
        "Mutations with something to purge, by what their answer said of it.",
        lambda now: _by(OUTCOME, now.mutations.items()),
    ),
    _Metric(
        "cacheinval.source.events",
        "{event}",
        "What came from, or goes to, what is attached, by what became of it.",
        _source_events,
    ),
)
# What may fall again, and is added up over replicas.
_SUMS = (
    _Metric(
        "cacheinval.queue.length",
        "{purge}",
        "Purges that have no number in the log yet.",
        _one(lambda now: now.queue_length),
    ),
    _Metric(
        "cacheinval.fence.active",
        "{purge}",
        "Purges without a number, late ones included, that forbid what is kept.",
        _one(lambda now: now.fences),
    ),
    _Metric(
        "cacheinval.forward.active",
        "{request}",
        "Forwards under way for which others may wait.",
        _one(lambda now: now.forwards_under_way),
    ),
    _Metric(
        "cacheinval.forward.waiting",
        "{request}",
        "Requests that wait for another's forward, here or on another replica.",
        _one(lambda now: now.waiting),
    ),
    _Metric(
        "cacheinval.refresh.active", "{refresh}", "Background refreshes that run.", _one(lambda now: now.refreshing)
    ),
    _Metric(
        "cacheinval.refresh.max",
        "{refresh}",
        "How many background refreshes may run.",
        _one(lambda now: now.max_refreshes),
    ),
    _Metric(
        "cacheinval.l1.size",
        "By",
        "What is kept in this process, bookkeeping included.",
        _one(lambda now: now.size_bytes),
    ),
    _Metric("cacheinval.l1.max", "By", "What may be kept in this process.", _one(lambda now: now.max_bytes)),
    _Metric(
        "cacheinval.source.lag",
        "{event}",
        "What has come and is not done, and what is known to wait outside.",
        lambda now: {name: state.waiting + (state.lag or 0) for name, state in _sources(now)},
    ),
)
# What says nothing when it is added up: the worst of several caches is told.
_GAUGES = (
    _Metric(
        "cacheinval.enabled",
        "{cache}",
        "0 while the kill switch is off.",
        _one(lambda now: int(now.enabled)),
        joined=min,
    ),
    _Metric(
        "cacheinval.bus.connected",
        "{cache}",
        "1 while the purge log is in touch, 0 while it is not.",
        _one(lambda now: int(now.connected)),
        joined=min,
    ),
    _Metric(
        "cacheinval.bus.lag",
        "{purge}",
        "Purges that are known to be in the log and are not applied here.",
        _one(lambda now: now.lag),
        joined=max,
    ),
    _Metric(
        "cacheinval.queue.age",
        "s",
        "For how long the oldest purge without a number has waited.",
        _one(lambda now: now.queue_age),
        joined=max,
    ),
    _Metric(
        "cacheinval.lease.remaining",
        "s",
        "For how long what is kept may be trusted without a word from the log; none in one process.",
        _lease,
        joined=min,
    ),
    _Metric(
        "cacheinval.source.connected",
        "{source}",
        "1 while a source is in touch with its system, 0 while it is not.",
        lambda now: {name: int(state.connected) for name, state in _sources(now)},
        joined=min,
    ),
)


# -- reporting it -------------------------------------------------------------------------------


class Gauges:
    """The observable instruments of one meter, for all caches of the process that report to it.

    An SDK takes one callback for each name: what may be added up is, of the rest the worst is told.
    """

    def __init__(self, meter: Meter) -> None:
        self._caches: list[ref[Reports]] = []
        # Of each cache the last reading, which counts on when it is gone: a counter does not fall.
        self._last: dict[tuple[str, ref[Reports]], Readings] = {}
        self._gone: dict[str, Counter[Attributes]] = {metric.name: Counter() for metric in _COUNTERS}
        self._requests: list[Tally[Answered]] = []
        for name, description, told in (
            ("cacheinval.requests", "Cacheable requests, by how they were answered.", _by_result),
            ("cacheinval.route.requests", "Cacheable requests, by route.", _by_route),
            ("cacheinval.route.hits", "Those of them that what is stored has answered, by route.", _hits_by_route),
        ):
            read = partial(self._answered, told)
            meter.create_observable_counter(name, [read], unit="{request}", description=description)
        for metric in _COUNTERS:
            meter.create_observable_counter(
                metric.name, [partial(self._risen, metric)], unit=metric.unit, description=metric.description
            )
        for make, metrics in (
            (meter.create_observable_up_down_counter, _SUMS),
            (meter.create_observable_gauge, _GAUGES),
        ):
            for metric in metrics:
                make(metric.name, [partial(self._now, metric)], unit=metric.unit, description=metric.description)

    def add(self, cache: Reports, requests: Tally[Answered]) -> None:
        """Report this cache as well."""
        self._caches.append(ref(cache, self._let_go))
        self._requests.append(requests)

    def remove(self, cache: Reports) -> None:
        """Report this cache no longer; what it has counted stays counted."""
        for held in [each for each in self._caches if each() is cache]:
            self._let_go(held)

    def _let_go(self, gone: ref[Reports]) -> None:
        self._caches.remove(gone)
        for metric in _COUNTERS:
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
            for answered, count in requests.totals().items():
                attributes = told(answered)
                if attributes is not None:
                    totals[attributes] += count
        return _observed(totals)

    def _risen(self, metric: _Metric, options: CallbackOptions) -> Iterable[Observation]:
        totals = Counter(self._gone[metric.name])
        for held, now in self._here():
            self._last[metric.name, held] = readings = metric.read(now)
            totals.update(readings)
        return _observed(totals)

    def _now(self, metric: _Metric, options: CallbackOptions) -> Iterable[Observation]:
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


def watch(provider: object, meter: Meter, cache: Reports, requests: Tally[Answered]) -> None:
    """Have a cache, and what it counts of requests, reported to the meter of a provider."""
    with _lock:
        gauges = _gauges.get(provider)
        if gauges is None:
            gauges = _gauges[provider] = Gauges(meter)
        gauges.add(cache, requests)
