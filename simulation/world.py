"""Virtual time: what happens next, to whom, and what of it is counted and told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, NamedTuple

from simulation.plan import Plan
from simulation.truth import Truth

if TYPE_CHECKING:
    from simulation.ablations import Ablation
    from simulation.cluster import Cluster
    from simulation.link import Link
    from simulation.process import Process

__all__ = ["Told", "World"]

# Woken, a process does what has waited one thing after another, and not in no time.
_A_STEP = 1e-6


class Told(NamedTuple):
    """A line of the trace; `key` is that of the response which was handed over, where it tells of one."""

    text: str
    key: int | None


class World:
    """One seed's run. An event belongs to a process, which may be paused or gone by then, or to nobody."""

    __slots__ = (
        "_pushed",
        "_queue",
        "ablation",
        "cluster",
        "counts",
        "draws",
        "hits",
        "now",
        "plan",
        "processes",
        "random",
        "reads",
        "served",
        "step",
        "trace",
        "truth",
    )

    cluster: Cluster

    def __init__(self, plan: Plan, ablation: Ablation, trace: list[Told] | None = None) -> None:
        self.plan = plan
        self.ablation = ablation
        self.draws = plan.draws
        self.random = plan.draws.random
        self.trace = trace
        self.now = 0.0
        # The number of the event that is under way: it orders what happens at one moment.
        self.step = 0
        self.truth = Truth(plan.stale_when_disconnected)
        self.processes: list[Process] = []
        self.counts: Counter[str] = Counter()
        # Reads that could have been stale, those of them that were answered from what is kept, and all reads.
        self.reads = 0
        self.hits = 0
        self.served = 0
        self._queue: list[tuple[float, int, Link | None, int, Callable[..., None], tuple[Any, ...]]] = []
        self._pushed = 0

    def tell(self, who: str, what: str, key: int | None = None) -> None:
        """One line of the trace, about one key or all; ask whether there is a trace before the text is made."""
        if self.trace is not None:
            self.trace.append(Told(f"{self.now:10.6f} {who:9} {what}", key))

    def push(self, when: float, process: Link | None, call: Callable[..., None], *arguments: Any) -> None:
        """Let something happen at a time, unless its process has died by then; a paused one does it when it wakes."""
        self._pushed += 1
        heappush(self._queue, (when, self._pushed, process, 0 if process is None else process.epoch, call, arguments))

    def run(self) -> None:
        """Until the end, or the first violation."""
        queue, seconds, truth = self._queue, self.plan.seconds, self.truth
        while queue:
            when, _, process, epoch, call, arguments = heappop(queue)
            if when > seconds or truth.violation is not None:
                return
            self.now = when
            self.step += 1
            if process is not None:
                if process.epoch != epoch:
                    continue
                if process.paused:
                    process.deferred.append((call, arguments))
                    continue
            call(*arguments)

    def wake(self, process: Link) -> None:
        """Let a paused process do all that has come up meanwhile, in its order or in any."""
        process.paused = False
        waiting, process.deferred = process.deferred, []
        if self.draws.chance(0.5):
            waiting.sort(key=lambda _: self.random())
        for number, (call, arguments) in enumerate(waiting):
            self.push(self.now + number * _A_STEP, process, call, *arguments)

    # -- the network ------------------------------------------------------------------------------

    def delay(self) -> float:
        """How long something is under way."""
        draws, plan = self.draws, self.plan
        if plan.slow and draws.chance(plan.slow):
            return draws.about(0.3)
        return draws.about(plan.base_delay)
