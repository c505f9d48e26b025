"""One seed, from its first event to its last."""

from __future__ import annotations

from simulation.ablations import WHOLE, Ablation
from simulation.cluster import Cluster
from simulation.faults import arrange
from simulation.plan import Plan
from simulation.process import Process
from simulation.world import Told, World

__all__ = ["run"]


def run(seed: int, seconds: float, ablation: Ablation = WHOLE, trace: list[Told] | None = None) -> World:
    """Run a seed; the world that is left has its counts and, where one was found, a violation."""
    plan = Plan(seed, seconds)
    world = World(plan, ablation, trace)
    world.cluster = Cluster(world)
    for number in range(plan.processes):
        world.processes.append(Process(world, f"process{number + 1}"))
    arrange(world)
    world.run()
    return world
