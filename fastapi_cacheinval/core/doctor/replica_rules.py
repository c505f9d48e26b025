"""What the replicas have to be: each rule looks at all of them."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi_cacheinval.core.doctor.examination import Examination
from fastapi_cacheinval.core.doctor.finding import Finding, Level
from fastapi_cacheinval.core.fleet import summaries_of
from fastapi_cacheinval.core.summary import ReplicaSummary
from fastapi_cacheinval.core.words import few, in_unit

__all__ = ["bounds", "lag", "leases", "log", "packages", "queues", "resets", "switches"]

_MOST_NAMED = 5
_MANY_RESETS = 3
_FEW_LINES = 5
_NOBODY = "There is no replica in touch."


def log(seen: Examination) -> Finding:
    """The namespace is in use."""
    found = seen.fleet.log
    if found is None:
        return Finding(
            "log",
            Level.ERROR,
            f"The namespace {seen.fleet.namespace!r} has no purge log here: no replica of it has ever started.",
            "Give the namespace and the database that the app uses: --namespace, and the number at the end of --url.",
        )
    age, unit = in_unit(max(0.0, seen.fleet.now - found.opened))
    return Finding(
        "log", Level.OK, f"Term {found.term} began {age:.0f} {unit} ago, and its last purge is number {found.seq}."
    )


def leases(seen: Examination) -> Finding:
    """Every replica is in touch."""
    replicas = seen.fleet.replicas
    if not replicas:
        return Finding(
            "leases", Level.WARNING, "No replica runs: nothing is served from this namespace.", "Start the app."
        )
    lapsed = [each for each in replicas if not each.live]
    if lapsed:
        told = [
            f"{each.name} (silent for {each.silent:.0f} s)" if each.silent is not None else each.name for each in lapsed
        ]
        return Finding(
            "leases",
            Level.WARNING,
            f"{len(lapsed)} of {len(replicas)} replicas have no lease: {_named(told)}. They were killed, stand still "
            "or do not reach this server, and answer nothing from their cache.",
            "Look at their logs for 'out of touch with the purge log'. One that was killed disappears by itself.",
        )
    return Finding("leases", Level.OK, f"{len(replicas)} of {len(replicas)} replicas hold a lease.")


def lag(seen: Examination) -> Finding:
    """Every replica that is in touch has read the log."""
    fleet = seen.fleet
    if fleet.log is None or not fleet.live:
        return Finding("lag", Level.UNKNOWN, _NOBODY)
    behind = [(each.name, fleet.behind(each) or 0) for each in fleet.live]
    told = [f"{name} by {lines}" for name, lines in behind if lines > _FEW_LINES]
    if told:
        return Finding(
            "lag",
            Level.WARNING,
            f"Replicas are behind the log: {_named(told)}.",
            "Their event loops are busy, or purges come faster than they are applied: look at cacheinval tail.",
        )
    return Finding("lag", Level.OK, "Every replica in touch has read the log.")


def queues(seen: Examination) -> Finding:
    """No purge waits."""
    waiting = [
        f"{each.process} has {each.statistics.queue_length}"
        for each in _summaries(seen)
        if each.statistics.queue_length
    ]
    if waiting:
        return Finding(
            "queue",
            Level.ERROR,
            f"Purges wait to be written: {_named(waiting)}. Until then other replicas serve what they name.",
            "They do not reach this server, or it refuses them: look at access and memory, and at their logs.",
        )
    return _told(seen, "queue", "No purge waits to be written.")


def bounds(seen: Examination) -> Finding:
    """One staleness_bound for all."""
    found = sorted({each.acknowledged.bound for each in seen.fleet.live if each.acknowledged is not None})
    if len(found) > 1:
        return Finding(
            "staleness_bound",
            Level.WARNING,
            f"Replicas differ in staleness_bound: {', '.join(f'{each:g} s' for each in found)}. The longest holds.",
            "Give all replicas the same: CACHEINVAL_STALENESS_BOUND.",
        )
    return Finding("staleness_bound", Level.OK, f"{found[0]:g} s." if found else _NOBODY)


def packages(seen: Examination) -> Finding:
    """One release of this package, but for a deployment under way."""
    found = sorted({each.package for each in _summaries(seen) if each.package})
    if len(found) > 1:
        return Finding(
            "package",
            Level.WARNING,
            f"Replicas run different releases of fastapi-cacheinval: {', '.join(found)}.",
            "That is right during a deployment. Otherwise deploy the same release everywhere.",
        )
    return _told(seen, "package", f"Every replica runs fastapi-cacheinval {found[0]}." if found else "")


def switches(seen: Examination) -> Finding:
    """The cache is on."""
    off = [each.process for each in _summaries(seen) if not each.statistics.enabled]
    if off:
        return Finding(
            "switch",
            Level.WARNING,
            f"The cache is switched off: {_named(off)}.",
            "Unset CACHEINVAL_ENABLED there, or set cache.enabled = True.",
        )
    return _told(seen, "switch", "The cache is on.")


def resets(seen: Examination) -> Finding:
    """Replicas keep what they have."""
    again = [
        (each.process, {cause: count for cause, count in each.statistics.reset_causes.items() if cause != "start"})
        for each in _summaries(seen)
    ]
    again.sort(key=lambda one: sum(one[1].values()), reverse=True)
    named = [f"{process} {_times(causes)}" for process, causes in again if causes]
    if not named:
        return _told(seen, "resets", "No replica had to give up all that it kept.")
    found = f"Replicas had to give up all that they kept: {_named(named)}."
    if sum(again[0][1].values()) < _MANY_RESETS:
        return Finding("resets", Level.OK, found)
    return Finding(
        "resets",
        Level.WARNING,
        found,
        "The server restarts, fails over, or loses the log to an eviction: look at eviction and at its uptime.",
    )


def _times(causes: Mapping[str, int]) -> str:
    times = sum(causes.values())
    return f"{'once' if times == 1 else f'{times} times'} ({', '.join(causes)})"


def _summaries(seen: Examination) -> list[ReplicaSummary]:
    return summaries_of(seen.fleet.replicas)


def _told(seen: Examination, check: str, well: str) -> Finding:
    """All is well, as far as replicas have told."""
    silent = [each.name for each in seen.fleet.live if each.summary is None]
    if silent:
        return Finding(
            check,
            Level.UNKNOWN,
            f"{_named(silent)} left no summary.",
            "They have just started, run an earlier release, or may not SET {namespace}:replica:*.",
        )
    return Finding(check, Level.OK, well or _NOBODY)


def _named(names: list[str]) -> str:
    return few(names, _MOST_NAMED)
