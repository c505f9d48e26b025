"""Metrics that are read when somebody collects: none of it does I/O."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from math import inf
from typing import Protocol
from weakref import WeakKeyDictionary, WeakSet

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from fastapi_cacheinval.core.statistics import SourceState, Statistics
from fastapi_cacheinval.telemetry.attributes import CAUSE, EVENT, SOURCE
from fastapi_cacheinval.telemetry.instruments import Answered, described
from fastapi_cacheinval.telemetry.tallies import Tally

__all__ = ["Gauges", "Reports", "watch"]

Number = int | float
Reader = Callable[[list[Statistics]], Iterable[Observation]]


class Reports(Protocol):
    """Something that reports of itself; held weakly by who watches it."""

    def statistics(self) -> Statistics:
        """A snapshot, from memory."""
        ...


class Gauges:
    """The observable instruments of one meter, for all caches of the process that report to it.

    An SDK takes one callback for each name: sizes, queues and evictions of several caches are added up, of leases the
    one that ends first is told, of lags the longest.
    """

    def __init__(self, meter: Meter) -> None:
        self._caches: WeakSet[Reports] = WeakSet()
        # Kept when their caches are gone: a counter does not fall.
        self._requests: list[Tally[Answered]] = []

        def callback(read: Reader) -> Callable[[CallbackOptions], Iterable[Observation]]:
            return lambda _: read([cache.statistics() for cache in list(self._caches)])

        meter.create_observable_counter(
            "cacheinval.requests",
            [lambda _: self._answered()],
            unit="{request}",
            description="Cacheable requests, by how they were answered.",
        )
        for name, read, unit, description in _read_gauges():
            meter.create_observable_gauge(name, [callback(read)], unit=unit, description=description)
        for name, read, unit, description in _read_counters():
            meter.create_observable_counter(name, [callback(read)], unit=unit, description=description)

    def add(self, cache: Reports, requests: Tally[Answered]) -> None:
        """Report this cache as well."""
        self._caches.add(cache)
        self._requests.append(requests)

    def _answered(self) -> Iterable[Observation]:
        totals: Counter[Answered] = Counter()
        for requests in list(self._requests):
            totals.update(requests.totals())
        return [Observation(total, described(answered)) for answered, total in totals.items()]


def _summed(read: Callable[[Statistics], Number]) -> Reader:
    return lambda caches: [Observation(sum(map(read, caches)))] if caches else []


def _longest_lag(caches: list[Statistics]) -> Iterable[Observation]:
    return [Observation(max(now.lag for now in caches))] if caches else []


def _first_lease(caches: list[Statistics]) -> Iterable[Observation]:
    leases = [max(0.0, now.lease_remaining) for now in caches if now.lease_remaining != inf]
    return [Observation(min(leases))] if leases else []


def _evictions(caches: list[Statistics]) -> Iterable[Observation]:
    if not caches:
        return []
    return [
        Observation(sum(now.evicted for now in caches), {CAUSE: "room"}),
        Observation(sum(now.reclaimed for now in caches), {CAUSE: "expired"}),
    ]


def _sources(caches: list[Statistics]) -> list[tuple[str, SourceState]]:
    return [(name, state) for now in caches for name, state in now.sources.items() if isinstance(state, SourceState)]


def _source_events(caches: list[Statistics]) -> Iterable[Observation]:
    totals: Counter[tuple[str, str]] = Counter()
    for name, state in _sources(caches):
        for event, count in (
            ("received", state.received),
            ("done", state.done),
            ("refused", state.refused),
            ("failed", state.failures),
        ):
            totals[name, event] += count
    return [Observation(total, {SOURCE: name, EVENT: event}) for (name, event), total in totals.items()]


def _source_lag(caches: list[Statistics]) -> Iterable[Observation]:
    totals: Counter[str] = Counter()
    for name, state in _sources(caches):
        totals[name] += state.waiting + (state.lag or 0)
    return [Observation(total, {SOURCE: name}) for name, total in totals.items()]


def _source_connected(caches: list[Statistics]) -> Iterable[Observation]:
    connected: dict[str, bool] = {}
    for name, state in _sources(caches):
        connected[name] = connected.get(name, True) and state.connected
    return [Observation(int(whole), {SOURCE: name}) for name, whole in connected.items()]


def _read_gauges() -> tuple[tuple[str, Reader, str, str], ...]:
    """Name, what reads it, unit and description of what may rise and fall."""
    return (
        (
            "cacheinval.queue.length",
            _summed(lambda now: now.queue_length),
            "{purge}",
            "Purges that have no number in the log yet.",
        ),
        (
            "cacheinval.bus.lag",
            _longest_lag,
            "{purge}",
            "Purges that are known to be in the log and are not applied here.",
        ),
        (
            "cacheinval.lease.remaining",
            _first_lease,
            "s",
            "For how long what is kept may be trusted without a word from the log; none in one process.",
        ),
        (
            "cacheinval.l1.size",
            _summed(lambda now: now.size_bytes),
            "By",
            "What is kept in this process, bookkeeping included.",
        ),
        (
            "cacheinval.source.lag",
            _source_lag,
            "{event}",
            "What has come and is not done, and what is known to wait outside.",
        ),
        (
            "cacheinval.source.connected",
            _source_connected,
            "{source}",
            "1 where a source is in touch with its system, 0 where it is not.",
        ),
    )


def _read_counters() -> tuple[tuple[str, Reader, str, str], ...]:
    """The same of what only rises."""
    return (
        (
            "cacheinval.l1.evictions",
            _evictions,
            "{response}",
            "Stored responses let go of, for room or because they were past all use.",
        ),
        (
            "cacheinval.source.events",
            _source_events,
            "{event}",
            "What came from, or goes to, what is attached, by what became of it.",
        ),
    )


_lock = threading.Lock()
_gauges: WeakKeyDictionary[object, Gauges] = WeakKeyDictionary()


def watch(provider: object, meter: Meter, cache: Reports, requests: Tally[Answered]) -> None:
    """Have a cache, and what it counts of requests, reported to the meter of a provider."""
    with _lock:
        gauges = _gauges.get(provider)
        if gauges is None:
            gauges = _gauges[provider] = Gauges(meter)
        gauges.add(cache, requests)
