"""What is read of a cache's statistics when somebody collects: the observable metrics, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import inf
from typing import NamedTuple

from fastapi_cacheinval.core.statistics import MUTATION_ANSWERS, RESET_CAUSES, SourceState, Statistics
from fastapi_cacheinval.telemetry.attributes import CAUSE, EVENT, OUTCOME, SOURCE

__all__ = ["COUNTERS", "GAUGES", "SUMS", "Attributes", "Metric", "Number", "Readings"]

Number = int | float
Attributes = tuple[tuple[str, str | None], ...]
Readings = dict[Attributes, Number]
_NONE: Attributes = ()


class Metric(NamedTuple):
    """Name, unit, description, what reads it of one cache, and how the readings of several become one."""

    name: str
    unit: str
    description: str
    read: Callable[[Statistics], Readings]
    joined: Callable[[list[Number]], Number] = sum


def _one(read: Callable[[Statistics], Number]) -> Callable[[Statistics], Readings]:
    return lambda now: {_NONE: read(now)}


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


def _evictions(now: Statistics) -> Readings:
    return _by(CAUSE, (("room", now.evicted), ("expired", now.reclaimed)))


def _resets(now: Statistics) -> Readings:
    return _by(CAUSE, ((cause, now.reset_causes.get(cause, 0)) for cause in RESET_CAUSES))


def _mutations(now: Statistics) -> Readings:
    return _by(OUTCOME, ((answer, now.mutations.get(answer, 0)) for answer in MUTATION_ANSWERS))


def _shadow(now: Statistics) -> Readings:
    shadow = now.shadow
    counts = {
        "equal": shadow.compared - shadow.different,
        "different": shadow.different,
        "failed": shadow.failed,
        "skipped": shadow.skipped,
    }
    # None of it without the setting.
    return _by(OUTCOME, counts.items()) if shadow.share else {}


def _source_lag(now: Statistics) -> Readings:
    return {name: state.waiting + (state.lag or 0) for name, state in _sources(now)}


def _source_connected(now: Statistics) -> Readings:
    return {name: int(state.connected) for name, state in _sources(now)}


# Each series is there from the start, at 0: one that is first seen at 1 has not risen, for Prometheus.
COUNTERS = (
    Metric(
        "cacheinval.l1.evictions",
        "{response}",
        "Stored responses let go of, for room or because they were past all use.",
        _evictions,
    ),
    Metric(
        "cacheinval.resets",
        "{reset}",
        "How often everything that was kept had to be given up.",
        _resets,
    ),
    Metric(
        "cacheinval.mutations",
        "{request}",
        "Mutations with something to purge, by what their answer said of it.",
        _mutations,
    ),
    Metric(
        "cacheinval.shadow",
        "{response}",
        "Hits that the app answered again, by how that compares with what is stored.",
        _shadow,
    ),
    Metric(
        "cacheinval.source.events",
        "{event}",
        "What came from, or goes to, what is attached, by what became of it.",
        _source_events,
    ),
)
"""What only rises."""

SUMS = (
    Metric(
        "cacheinval.queue.length",
        "{purge}",
        "Purges that have no number in the log yet.",
        _one(lambda now: now.queue_length),
    ),
    Metric(
        "cacheinval.fence.active",
        "{purge}",
        "Purges without a number, late ones included, that forbid what is kept.",
        _one(lambda now: now.fences),
    ),
    Metric(
        "cacheinval.forward.active",
        "{request}",
        "Forwards under way for which others may wait.",
        _one(lambda now: now.forwards_under_way),
    ),
    Metric(
        "cacheinval.forward.waiting",
        "{request}",
        "Requests that wait for another's forward, here or on another replica.",
        _one(lambda now: now.waiting),
    ),
    Metric(
        "cacheinval.refresh.active", "{refresh}", "Background refreshes that run.", _one(lambda now: now.refreshing)
    ),
    Metric(
        "cacheinval.refresh.max",
        "{refresh}",
        "How many background refreshes may run.",
        _one(lambda now: now.max_refreshes),
    ),
    Metric(
        "cacheinval.l1.size",
        "By",
        "What is kept in this process, bookkeeping included.",
        _one(lambda now: now.size_bytes),
    ),
    Metric("cacheinval.l1.max", "By", "What may be kept in this process.", _one(lambda now: now.max_bytes)),
    Metric(
        "cacheinval.source.lag",
        "{event}",
        "What has come and is not done, and what is known to wait outside.",
        _source_lag,
    ),
)
"""What may fall again, and is added up over caches and replicas."""

GAUGES = (
    Metric(
        "cacheinval.enabled",
        "{cache}",
        "0 while the kill switch is off.",
        _one(lambda now: int(now.enabled)),
        joined=min,
    ),
    Metric(
        "cacheinval.bus.connected",
        "{cache}",
        "1 while the purge log is in touch, 0 while it is not.",
        _one(lambda now: int(now.connected)),
        joined=min,
    ),
    Metric(
        "cacheinval.bus.lag",
        "{purge}",
        "Purges that are known to be in the log and are not applied here.",
        _one(lambda now: now.lag),
        joined=max,
    ),
    Metric(
        "cacheinval.queue.age",
        "s",
        "For how long the oldest purge without a number has waited.",
        _one(lambda now: now.queue_age),
        joined=max,
    ),
    Metric(
        "cacheinval.lease.remaining",
        "s",
        "For how long what is kept may be trusted without a word from the log; none in one process.",
        _lease,
        joined=min,
    ),
    Metric(
        "cacheinval.source.connected",
        "{source}",
        "1 while a source is in touch with its system, 0 while it is not.",
        _source_connected,
        joined=min,
    ),
)
"""What says nothing when it is added up: the worst of several caches is told."""
