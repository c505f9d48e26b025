"""What one process purges, and what of that has no number yet: its fences and its queue."""

from __future__ import annotations

from typing import NamedTuple

from fastapi_cacheinval.core.backlog import Backlog
from fastapi_cacheinval.core.replica import Replica
from simulation.link import Call, Link
from simulation.node import WrittenLine
from simulation.truth import Memory
from simulation.world import World

__all__ = ["Fencing", "Purge"]


class Purge(NamedTuple):
    """What is to be purged: `done(lines)` once all its lines have been applied here, or `failed()`.

    `left` are the tags of the lines that are still to be written, `lines` those that have been.
    """

    tags: tuple[str, ...]
    done: Call
    failed: Call
    soft: bool = False
    prompt: bool = False
    tries: int = 3
    left: tuple[tuple[str, ...], ...] = ()
    lines: tuple[WrittenLine, ...] = ()


class Fencing(Link):
    """A process that fences and queues; what it has been told outlives it in `memory`."""

    replica: Replica
    backlog: Backlog
    fences: dict[int, tuple[str, ...]]

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.memory = Memory()

    def fence(self, tags: tuple[str, ...]) -> int:
        """Fence tags whose purge has no number yet."""
        world = self.world
        world.counts["fences"] += 1
        handle = self.replica.fence(tags)
        self.fences[handle] = tags
        world.truth.fenced(self.memory, tags, world.step, world.now)
        if world.trace is not None:
            world.tell(self.name, f"fences {' '.join(tags)} ({handle})")
        return handle

    def lift(self, handle: int) -> None:
        """End a fence, its purge applied."""
        world = self.world
        self.replica.lift(handle)
        world.truth.lifted(self.memory, self.fences.pop(handle))
        if world.trace is not None:
            world.tell(self.name, f"lifts fence {handle}")

    def queue(self, tags: tuple[str, ...], *, soft: bool, fence: int | None) -> None:
        """Keep a purge that failed, until it can be written."""
        world = self.world
        world.counts["purges queued"] += 1
        before = len(self.backlog)
        self.backlog.add(tags, soft=soft, fence=fence)
        if before and len(self.backlog) == 1:
            world.counts["queues that became everything"] += 1
        if world.trace is not None:
            world.tell(self.name, f"queues {' '.join(tags)}: {self.backlog!r}")
