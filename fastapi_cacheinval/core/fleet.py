"""The replicas of a namespace as Redis tells of them: their acknowledgements in the log, and their summaries."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from fastapi_cacheinval.core.summary import ReplicaSummary

__all__ = ["Acknowledgement", "Fleet", "LogState", "SeenReplica", "acknowledgement_of", "summaries_of"]


class Acknowledgement(NamedTuple):
    """What a replica last told the log: the line it had read (-1 in another term), when, and the length of its lease.

    `at` is the server's time, in seconds since the epoch; `bound` is seconds.
    """

    applied: int
    at: float
    bound: float


# No lease is longer than ten years.
_LONGEST = 3_650 * 86_400.0


def acknowledgement_of(value: bytes) -> Acknowledgement | None:
    """What the log's script wrote; None for anything that it cannot have written."""
    parts = value.split(b" ")
    try:
        applied, at, bound = map(int, parts)
        found = Acknowledgement(applied, at / 1_000_000, bound / 1_000_000)
    except (ValueError, OverflowError):
        return None
    return found if 0 < found.bound <= _LONGEST else None


@dataclass(frozen=True, slots=True)
class LogState:
    """The purge log: its term, its last number, and since when the term is, in seconds since the epoch.

    `lines` and `tags` are what it keeps now: lines for replicas that lag, and tags that were purged.
    """

    term: int
    seq: int
    opened: float
    lines: int
    tags: int


@dataclass(frozen=True, slots=True)
class SeenReplica:
    """One replica: its id, its acknowledgement and its summary, as far as either is there.

    `silent` is for how many seconds it has not asked the log; None where it has left, or is long gone.
    """

    replica: str
    acknowledged: Acknowledgement | None
    silent: float | None
    summary: ReplicaSummary | None

    @property
    def lease(self) -> float:
        """Seconds that are left of its lease at most; 0 where it has none."""
        if self.acknowledged is None or self.silent is None:
            return 0.0
        return max(0.0, self.acknowledged.bound - self.silent)

    @property
    def live(self) -> bool:
        """Whether it may hold a lease."""
        return self.lease > 0

    @property
    def applied(self) -> int | None:
        """The last line that it has read; None where it has not said that, or has read none of this term."""
        return None if self.acknowledged is None or self.acknowledged.applied < 0 else self.acknowledged.applied

    @property
    def name(self) -> str:
        """Its process as host/pid; its id where there is no summary."""
        return self.replica if self.summary is None else self.summary.process


@dataclass(frozen=True, slots=True)
class Fleet:
    """All replicas of a namespace at one moment of the server's time; `log` is None where the namespace has none."""

    namespace: str
    now: float
    log: LogState | None
    replicas: tuple[SeenReplica, ...] = ()

    @property
    def live(self) -> tuple[SeenReplica, ...]:
        """Those that may hold a lease."""
        return tuple(replica for replica in self.replicas if replica.live)

    @property
    def bound(self) -> float | None:
        """The longest lease of any of them, in seconds; None where nobody has acknowledged anything."""
        return max((each.acknowledged.bound for each in self.replicas if each.acknowledged is not None), default=None)

    @property
    def confirm_replicas(self) -> int:
        """How many replicas of the server have to acknowledge a purge: the most that any of them asks for."""
        return max((each.confirm_replicas for each in summaries_of(self.replicas)), default=0)

    def behind(self, replica: SeenReplica) -> int | None:
        """How many lines of the log a replica has not read; None where that is not known."""
        return None if self.log is None or replica.applied is None else max(0, self.log.seq - replica.applied)


def summaries_of(replicas: Iterable[SeenReplica]) -> list[ReplicaSummary]:
    """The summaries of those that have left one."""
    return [each.summary for each in replicas if each.summary is not None]
