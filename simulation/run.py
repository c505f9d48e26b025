"""One seed, and many of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from simulation.ablations import WHOLE, Ablation
from simulation.cluster import Cluster
from simulation.faults import arrange
from simulation.plan import BOUND, Plan
from simulation.process import Process
from simulation.truth import Violation
from simulation.world import Told, World

__all__ = ["SECONDS", "Totals", "caught", "run", "run_all"]

# How long a seed's world lasts.
SECONDS = 40.0


@dataclass(slots=True)
class Totals:
    """What came of some seeds.

    `reads` could have been stale, `hits` of them were answered from what is kept, `served` counts all. `worst` is the
    longest time in seconds for which anything was handed over after its purge had been written, where responses are
    not kept for longer than the bound while disconnected; `worst_share` the largest share of what is allowed.
    """

    seeds: int = 0
    reads: int = 0
    hits: int = 0
    served: int = 0
    stale: int = 0
    worst: float = 0.0
    worst_share: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    violations: list[tuple[int, Violation]] = field(default_factory=list)

    def add(self, other: Totals) -> None:
        """Take the results of other seeds in."""
        self.seeds += other.seeds
        self.reads += other.reads
        self.hits += other.hits
        self.served += other.served
        self.stale += other.stale
        self.worst = max(self.worst, other.worst)
        self.worst_share = max(self.worst_share, other.worst_share)
        self.counts.update(other.counts)
        self.violations += other.violations


def run(seed: int, ablation: Ablation = WHOLE, trace: list[Told] | None = None) -> World:
    """Run a seed; the world that is left has its counts and, where one was found, a violation."""
    plan = Plan(seed, SECONDS)
    for name, value in ablation.harsh.items():
        setattr(plan, name, value)
    world = World(plan, ablation, trace)
    cluster = world.cluster = Cluster(world)
    processes: list[Process] = []
    for number in range(int(plan.processes)):
        processes.append(Process(world, f"process{number + 1}"))
        world.processes.append(processes[-1])
    arrange(world, cluster, processes)
    world.run()
    return world


def run_all(seeds: Iterable[int]) -> Totals:
    """Run some seeds one after another."""
    totals = Totals()
    for seed in seeds:
        world = run(seed)
        truth = world.truth
        one = Totals(1, world.reads, world.hits, world.served, truth.stale)
        one.worst = truth.worst if truth.allowed == BOUND else 0.0
        one.worst_share = truth.worst / truth.allowed
        one.counts = world.counts
        if truth.violation is not None:
            one.violations.append((seed, truth.violation))
        totals.add(one)
    return totals


def caught(ablation: Ablation, tries: int) -> tuple[int, Violation] | None:
    """The first of some seeds on which the protocol without a rule breaks a promise, and which."""
    for seed in range(ablation.seed, ablation.seed + tries):
        violation = run(seed, ablation).truth.violation
        if violation is not None:
            return seed, violation
    return None
