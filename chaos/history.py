"""The record of a run. Times are seconds of the one monotonic clock of the process that makes the load.

The recorded times enclose the real ones: an operation began before its request was sent, and ended after its response
was read. Conclusions from these times therefore hold without slack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

__all__ = ["Commit", "Fault", "History", "Outcome", "Probe", "Read", "Write"]


class Outcome(Enum):
    """The answer that the client of a write got about its purge."""

    EVERYWHERE = "everywhere"
    DONE = "done"
    QUEUED = "queued"
    LATE = "late-purge"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Commit:
    """A committed write: the row's next version, the time, and the life of the replica that wrote it."""

    version: int
    at: float
    life: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One mutation of a row; without a `commit` it changed nothing. A soft one asked for stale answers.

    `other` marks a write of another program. It ended when a replica had purged for its event.
    The outcome is `UNKNOWN` if the client learned nothing about the purge: after an error, without an answer, or if it
    went away.
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
    """One answered read: the version of each row in it, and the time `filled` at which its handler began.

    `life` names the process that answered; the handler may have run in another one. `live` says that the process held a
    lease all the while. `promised` holds the versions that a token of the client's own writes vouched for.
    If the `cdn` answered from what it keeps, the other fields are those of the kept response.
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

    `clean`: it had no mutation under way, and had written all its purges. `told`: the CDN had confirmed them, too.
    """

    life: str
    began: float
    ended: float
    clean: bool
    told: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault of a server, a replica or a connection."""

    kind: str
    target: str
    began: float
    ended: float


@dataclass(slots=True)
class History:
    """All of a run; `unanswered` counts the reads that failed, by status or kind of error."""

    reads: list[Read] = field(default_factory=list[Read])
    writes: list[Write] = field(default_factory=list[Write])
    probes: list[Probe] = field(default_factory=list[Probe])
    faults: list[Fault] = field(default_factory=list[Fault])
    unanswered: dict[str, int] = field(default_factory=dict[str, int])
