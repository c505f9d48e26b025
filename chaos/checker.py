"""Check whether a history keeps the promises. It is pure: a history in, violations out.

The rules, for every committed hard write:

- once its replica has purged it, no read that begins on the same life of that replica sees an older version (G2);
- `bound` after its purge is known to be in the log, no read that begins on any replica sees an older version (G3);
- the answer to such a read does not come from a handler that began before the commit (G4);
- once the CDN is known to have confirmed the purge, no read through the CDN sees an older version;
- a read with the token of a write sees that write at once, on any replica (G2).

The moments of these rules:

| the client's answer | purged on its replica | in the log |
|---|---|---|
| `everywhere` | at the answer | at the answer; a replica with a lease has no bound |
| `done` | at the answer | at the answer |
| `queued` | at the answer | at the first clean probe of the same life after the answer |
| `late-purge`, or none | at the first clean probe of the same life after commit and answer | the same |

A write of another program is `done` when a life has purged for its event. The CDN is known to have confirmed a purge at
the first probe of the purging life, after the purge was in the log, that is clean and finds every purge confirmed.

If a life ends before its clean probe, its purge may be lost, and the write is unbound. A write without a commit binds
nothing. A write with an unknown outcome binds only if the authority has its commit.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

from chaos.history import Commit, History, Outcome, Probe, Read, Write

__all__ = ["Verdict", "Violation", "check"]


@dataclass(frozen=True, slots=True)
class Violation:
    """A read that broke a promise, the write that it should have seen, and how many seconds too late it began."""

    promise: str
    read: Read
    write: Write
    late: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a check.

    `at_risk` counts the reads that overlap a hard write to one of their rows, or begin within two bounds after one.
    `unbound` counts the committed hard writes that bind no replica, except perhaps their own. `cdn` counts those that
    bind the CDN. `worst` is the longest time in seconds for which a replica served what another one had purged.
    """

    violations: Sequence[Violation]
    at_risk: int
    unbound: int
    cdn: int
    worst: float


@dataclass(frozen=True, slots=True)
class _Bound:
    """A committed hard write, and the moments from which it binds its own life, is in the log, and binds the CDN."""

    write: Write
    commit: Commit
    own: float
    known: float
    cdn: float


class _Probes:
    """The clean probes of each life, in the order of their beginnings."""

    def __init__(self, probes: Sequence[Probe]) -> None:
        self._clean: defaultdict[str, list[Probe]] = defaultdict(list)
        self._told: defaultdict[str, list[Probe]] = defaultdict(list)
        for probe in sorted(probes, key=lambda probe: probe.began):
            if probe.clean:
                self._clean[probe.life].append(probe)
            if probe.clean and probe.told:
                self._told[probe.life].append(probe)

    def after(self, life: str, moment: float, *, told: bool = False) -> float:
        """The end of the first clean probe after this moment, or of the first told one; inf without one."""
        clean = (self._told if told else self._clean)[life]
        first = bisect_left(clean, moment, key=lambda probe: probe.began)
        return clean[first].ended if first < len(clean) else inf


def _bindings(history: History) -> dict[int, list[_Bound]]:
    """The writes that bind, by row, the newest version first."""
    probes = _Probes(history.probes)
    rows: defaultdict[int, list[_Bound]] = defaultdict(list)
    for write in history.writes:
        commit = write.commit
        if commit is None or write.soft:
            continue
        clean = probes.after(commit.life, max(write.ended, commit.at))
        match write.outcome:
            case Outcome.EVERYWHERE | Outcome.DONE:
                own, known = write.ended, write.ended
            case Outcome.QUEUED:
                own, known = write.ended, clean
            case Outcome.LATE | Outcome.UNKNOWN:
                own, known = clean, clean
        cdn = probes.after(commit.life, max(known, commit.at), told=True)
        rows[write.row].append(_Bound(write, commit, own, known, cdn))
    for bounds in rows.values():
        bounds.sort(key=lambda bound: -bound.commit.version)
    return dict(rows)


def _broken(read: Read, row: int, seen: int, bounds: Sequence[_Bound], bound: float) -> Iterator[Violation]:
    """The promises that one row of a read breaks; the oldest write that it should have seen comes last."""
    for each in bounds:
        older = seen < each.commit.version
        if not older and read.filled >= each.commit.at:
            # Versions are committed in order, so all others are older.
            return
        if read.cdn:
            if older and read.began > each.cdn:
                yield Violation("CDN", read, each.write, read.began - each.cdn)
        elif read.life == each.commit.life and read.began > each.own:
            yield Violation("G2" if older else "G4", read, each.write, read.began - each.own)
        elif read.began > each.known + bound:
            yield Violation("G3" if older else "G4", read, each.write, read.began - each.known)
        elif read.live and read.began > each.known and each.write.outcome is Outcome.EVERYWHERE:
            yield Violation("G3 by waiting", read, each.write, read.began - each.known)
        elif seen < each.commit.version == read.promised.get(row):
            yield Violation("G2 by token", read, each.write, read.began - each.write.ended)


def _staleness(read: Read, seen: int, bounds: Sequence[_Bound]) -> float:
    """For how many seconds another replica had purged the version that this read got."""
    known = inf
    for each in bounds:
        if each.commit.version <= seen:
            break
        if each.commit.life != read.life:
            known = min(known, each.known)
    return read.began - known


def _at_risk(read: Read, bounds: Sequence[_Bound], bound: float) -> bool:
    return any(read.ended >= each.write.began and read.began <= each.write.ended + 2 * bound for each in bounds)


def check(history: History, bound: float) -> Verdict:
    """Check every read against every write; `bound` is the staleness bound in seconds."""
    rows = _bindings(history)
    violations: list[Violation] = []
    at_risk, worst = 0, 0.0
    for read in history.reads:
        risky = False
        for row, seen in read.versions.items():
            bounds = rows.get(row, [])
            found = list(_broken(read, row, seen, bounds, bound))
            if found:
                violations.append(max(found, key=lambda violation: violation.late))
            worst = worst if read.cdn else max(worst, _staleness(read, seen, bounds))
            risky = risky or _at_risk(read, bounds, bound)
        at_risk += risky
    every = [each for bounds in rows.values() for each in bounds]
    unbound, cdn = sum(each.known == inf for each in every), sum(each.cdn < inf for each in every)
    return Verdict(violations, at_risk, unbound, cdn, worst)
