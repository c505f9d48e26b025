"""What a run records. Times are seconds of the one monotonic clock of the process that makes the load.

What a client writes down is wider than what happened: an operation began before its request was sent, and ended after
its response was read. So whatever follows from these times holds without any slack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

__all__ = ["Commit", "Fault", "History", "Outcome", "Probe", "Read", "Write"]


class Outcome(Enum):
    """What the client of a write was told."""

    EVERYWHERE = "everywhere"
    DONE = "done"
    QUEUED = "queued"
    LATE = "late-purge"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Commit:
    """What the authority made of a write: the row's next version, at a time, for one life of a replica."""

    version: int
    at: float
    life: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One mutation of a row; without a `commit` it changed nothing. A soft one asked for stale answers.

    `other` is one of another program, which ended when a replica had purged what its event said.
    `UNKNOWN` is whatever gave the client no word about the purge: an error, no answer, a client that went away.
    """

    row: int
    replica: int
    began: float
    ended: float
    outcome: Outcome
    commit: Commit | None
    soft: bool = False
    other: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """One answered read: the version of each row in it, and when the handler that made it had begun.

    `life` names the process that answered, which need not be the one whose handler ran, and `live` says that it held a
    lease all the while. `promised` holds the versions that a token of the client's own writes vouched for.
    One that the `cdn` has answered with what it keeps has the rest of when that was stored.
    """

    replica: int
    life: str
    began: float
    ended: float
    path: str
    versions: Mapping[int, int]
    filled: float
    cache_status: str
    live: bool = True
    promised: Mapping[int, int] = field(default_factory=dict[int, int])
    cdn: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A look at one life of a replica.

    `clean`: no mutation was inside it, and no purge of its was unwritten. `told`: the CDN had confirmed all of them as
    well.
    """

    life: str
    began: float
    ended: float
    clean: bool
    told: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that was done to a server, a replica or a connection."""

    kind: str
    target: str
    began: float
    ended: float


@dataclass(slots=True)
class History:
    """All of a run; `unanswered` counts reads that failed, by what came instead of an answer."""

    reads: list[Read] = field(default_factory=list[Read])
    writes: list[Write] = field(default_factory=list[Write])
    probes: list[Probe] = field(default_factory=list[Probe])
    faults: list[Fault] = field(default_factory=list[Fault])
    unanswered: dict[str, int] = field(default_factory=dict[str, int])
