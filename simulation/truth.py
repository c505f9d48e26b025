"""Who knows what happened, whatever anybody has heard of it, and checks every response that is handed over."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from fastapi_cacheinval.core.tags import ALL
from simulation.plan import BOUND, KEYS
from simulation.response import Kept

__all__ = ["TAGS", "Memory", "Truth", "Violation", "keys_of"]

# Each key is one row; its response carries the row's tag, those of two groups, and the one that everything carries.
TAGS = tuple((f"row:{key}", f"odd:{key % 2}", f"group:{key % 4}", ALL) for key in range(KEYS))
_KEYS_OF: dict[str, tuple[int, ...]] = {
    tag: tuple(key for key in range(KEYS) if tag in TAGS[key]) for tags in TAGS for tag in tags
}


def keys_of(tags: Iterable[str]) -> tuple[int, ...]:
    """The keys whose responses carry one of the tags."""
    return tuple({key: None for tag in tags for key in _KEYS_OF[tag]})


@dataclass(slots=True)
class Violation:
    """A response that must not have been handed over; `promise` names what was broken."""

    promise: str
    at: float
    text: str
    key: int


class Memory:
    """What one replica has been told, by key: of which lines and fences, and which writes it has acknowledged.

    It outlives the process, except what only that process knew. Steps order what happens in one process, moments
    compare it with what others filled.
    """

    __slots__ = ("acked", "fence_step", "fenced", "hard_at", "hard_step", "numbered", "soft_at", "soft_step")

    def __init__(self) -> None:
        self.hard_at = [-inf] * KEYS
        self.soft_at = [-inf] * KEYS
        self.hard_step = [-1] * KEYS
        self.soft_step = [-1] * KEYS
        self.fenced = [0] * KEYS
        # The version of the row that a later read must have, and that of writes whose purge has a number.
        self.acked = [0] * KEYS
        self.numbered = [0] * KEYS

    def crashed(self) -> None:
        """What had no number is gone with the process; what had is not."""
        self.acked = list(self.numbered)
        self.fenced = [0] * KEYS


class Truth:
    """All commits and all lines, by key and in order, and what may still be handed over because of them.

    `allowed` is for how long after a purge was written, and confirmed where servers do that, a response from before it
    may be handed over where it has not been heard of. A read counts, until `hot_until`, as one that could be stale.
    """

    __slots__ = (
        "allowed",
        "commits",
        "everywhere",
        "hard",
        "hard_from",
        "hot_until",
        "moved",
        "soft",
        "soft_from",
        "stale",
        "violation",
        "worst",
    )

    def __init__(self, stale_when_disconnected: float) -> None:
        self.allowed = BOUND + stale_when_disconnected
        self.commits: list[list[float]] = [[] for _ in range(KEYS)]
        self.hard: list[list[float]] = [[] for _ in range(KEYS)]
        self.soft: list[list[float]] = [[] for _ in range(KEYS)]
        # From when on the bound counts for each: where servers confirm, that is later than it was written.
        self.hard_from: list[list[float]] = [[] for _ in range(KEYS)]
        self.soft_from: list[list[float]] = [[] for _ in range(KEYS)]
        # Where somebody waited until every replica had read a line: when it was written.
        self.everywhere = [-inf] * KEYS
        # When anything last happened that could make a response of this key wrong anywhere.
        self.moved = [-inf] * KEYS
        self.hot_until = [-inf] * KEYS
        self.worst = 0.0
        self.stale = 0
        self.violation: Violation | None = None

    # -- what happens -----------------------------------------------------------------------------

    def writing(self, keys: Iterable[int], now: float) -> None:
        """A write begins, or is committed or acknowledged: reads until twice the bound from here could be stale."""
        for key in keys:
            self.hot_until[key] = now + 2 * BOUND

    def committed(self, keys: Iterable[int], now: float) -> None:
        """The rows of these keys have a new version."""
        self.writing(keys, now)
        for key in keys:
            self.commits[key].append(now)
            self.moved[key] = now

    def version(self, key: int, at: float) -> int:
        """The version that a handler reads at this moment."""
        return bisect_right(self.commits[key], at)

    def written(self, tags: tuple[str, ...], written: float, now: float, *, soft: bool) -> None:
        """A line that was written at a moment is in the log of a server for good, as far as it can promise that."""
        times, since = (self.soft, self.soft_from) if soft else (self.hard, self.hard_from)
        for key in keys_of(tags):
            # In order: what an earlier one concerns, a later one does.
            times[key].append(max(written, times[key][-1]) if times[key] else written)
            since[key].append(now)
            self.moved[key] = now

    def applied(
        self, memory: Memory, tags: tuple[str, ...], written: float, step: int, now: float, *, soft: bool
    ) -> None:
        """A replica has taken in a line."""
        steps = memory.soft_step if soft else memory.hard_step
        for key in keys_of(tags):
            steps[key] = step
        self.numbered(memory, tags, written, now, soft=soft)

    def numbered(self, memory: Memory, tags: tuple[str, ...], written: float, now: float, *, soft: bool) -> None:
        """A replica knows that its own purge has been written; it may have taken it in before."""
        at = memory.soft_at if soft else memory.hard_at
        for key in keys_of(tags):
            at[key] = max(at[key], written)
            self.moved[key] = now

    def fenced(self, memory: Memory, tags: Iterable[str], step: int, now: float) -> None:
        """A replica has a purge that has no number yet."""
        for key in keys_of(tags):
            memory.fenced[key] += 1
            memory.hard_step[key] = step
            self.moved[key] = now

    def lifted(self, memory: Memory, tags: Iterable[str]) -> None:
        """The fence has ended: its purge has a number, and has been applied."""
        for key in keys_of(tags):
            memory.fenced[key] -= 1

    def read_everywhere(self, tags: tuple[str, ...], written: float, now: float) -> None:
        """The server says that every replica has read a line, or has no lease."""
        for key in keys_of(tags):
            self.everywhere[key] = max(self.everywhere[key], written)
            self.moved[key] = now

    # -- what is handed over ----------------------------------------------------------------------

    def handed_over(self, memory: Memory, kept: Kept, now: float, *, fresh: bool, live: bool) -> None:
        """Check one hand-over; the common one, of a response that nothing happened to, need not come here."""
        key, began = kept.key, kept.began
        hard = self.hard[key]
        if hard and began < hard[-1]:
            age = now - self.hard_from[key][bisect_right(hard, began)]
            self.stale += 1
            self.worst = max(self.worst, age)
            if age >= self.allowed:
                self._broken("G3", kept, now, f"{age:.3f} s after a hard purge was written")
        if began < memory.hard_at[key] if not kept.own else kept.step < memory.hard_step[key]:
            self._broken("G4", kept, now, "its fill began before a hard purge that this replica has taken in")
        if kept.version < memory.acked[key]:
            self._broken(
                "G2", kept, now, f"version {memory.acked[key]} of the row was acknowledged here, it has {kept.version}"
            )
        if memory.fenced[key] and not kept.own:
            self._broken("fence", kept, now, "another's response behind a fence")
        if began < self.everywhere[key] and live:
            self._broken("wait", kept, now, "somebody was told that every replica has read its purge")
        if fresh:
            soft = self.soft[key]
            since = self.soft_from[key]
            if soft and began < soft[-1] and now - since[bisect_right(soft, began)] >= self.allowed:
                self._broken("soft", kept, now, "as fresh, too long after a soft purge")
            if began < memory.soft_at[key] if not kept.own else kept.step < memory.soft_step[key]:
                self._broken("soft", kept, now, "as fresh, after a soft purge that this replica has taken in")

    def _broken(self, promise: str, kept: Kept, now: float, why: str) -> None:
        if self.violation is None:
            self.violation = Violation(promise, now, f"{kept!r} was handed over: {why}", kept.key)
