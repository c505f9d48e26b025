"""One run: the stage, the load and the faults side by side, and the check of what came of it."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from chaos.app import APP_FAILS
from chaos.authority import Authority
from chaos.cdn import CDN
from chaos.checker import Verdict, check
from chaos.events import Events
from chaos.history import History, Outcome
from chaos.lanes import play
from chaos.load import Load
from chaos.pair import pair
from chaos.sentinels import HOSTS, sentinels
from chaos.shards import shards
from chaos.stage import Build, Setting, Stage
from tests.servers.processes import ServerName

__all__ = ["TOPOLOGIES", "Beside", "Plan", "Result", "Topology", "run"]

Topology = Literal["pair", "sentinels", "cluster"]

# How to make each topology, and how many replicas of its servers confirm a purge.
TOPOLOGIES: dict[Topology, tuple[Callable[[Setting], AbstractContextManager[Stage]], int]] = {
    "pair": (pair, 0),
    "sentinels": (sentinels, 1),
    "cluster": (shards, 0),
}

Beside = Callable[[Stage, History, Path], Coroutine[Any, Any, None]]
"""A coroutine that runs as long as the load does. The directory has the files of the run."""

# The load goes on for so many bounds after the last fault, to check that every fault has ended.
_CALM = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run: faults begin for `seconds`, and `bound` is the staleness bound in seconds.

    Without `confirm_replicas` the topology has its own number. `peace` multiplies the time between faults.
    """

    topology: Topology = "pair"
    confirm_replicas: int | None = None
    peace: float = 1.0

    server: ServerName = "uvicorn"
    build: Build = "cacheinval"
    replicas: int = 3
    seconds: float = 60.0
    bound: float = 1.0
    seed: str = "1"

    @property
    def count(self) -> int:
        """The number of replicas; in a network of hosts each host has one."""
        return HOSTS if self.topology == "sentinels" else self.replicas


@dataclass(frozen=True, slots=True)
class Result:
    """The history of a run and the verdict on it; the load began at `began` and lasted `seconds`.

    `misdeeds` counts what the source of events and the CDN did wrong, by who and what.
    """

    plan: Plan
    history: History
    verdict: Verdict
    began: float
    seconds: float
    misdeeds: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def hits(self) -> int:
        """Reads that got a stored response, stale or not."""
        return sum("hit" in read.cache_status.replace(";", " ").split() for read in self.history.reads)

    @property
    def failed(self) -> int:
        """Reads that got a status that no handler gives, so that a failure of the cache became one of the app."""
        return sum(count for what, count in self.history.unanswered.items() if what.isdigit() and what != APP_FAILS)

    @property
    def events(self) -> int:
        """Writes of another program whose events led to a purge."""
        return sum(write.other and write.outcome is Outcome.DONE for write in self.history.writes)

    @property
    def kept(self) -> int:
        """Reads that the CDN answered from what it kept."""
        return sum(read.cdn for read in self.history.reads)

    @property
    def held(self) -> bool:
        """Whether the run proves something, broke no promise, and failed no read."""
        return not (self.void or self.failed or self.verdict.violations)

    @property
    def void(self) -> str:
        """The reason why the run proves nothing; empty if it proves something."""
        if not self.history.faults:
            return "no fault was made"
        if not self.verdict.at_risk or not self.hits:
            return "no read could have been stale"
        # The hosts of a network of their own do not reach the CDN.
        at_cdn = self.plan.topology == "sentinels" or (self.kept and self.verdict.cdn)
        if not self.events or not at_cdn:
            return "no event was purged, or nothing that the CDN kept could have been stale"
        return ""


async def _played(stage: Stage, load: Load, plan: Plan, watching: Coroutine[Any, Any, None] | None) -> None:
    until = time.monotonic() + plan.seconds
    note = load.history.faults.append
    async with asyncio.TaskGroup() as clients:
        for work in load.work():
            clients.create_task(work)
        watch = clients.create_task(watching) if watching is not None else None
        async with asyncio.TaskGroup() as faults:
            for number, lane in enumerate(stage.lanes):
                draw = random.Random(f"{plan.seed} f{number}")
                faults.create_task(play(lane, stage, plan.bound * plan.peace, draw, until, note))
        load.cdn.well = True
        await asyncio.sleep(_CALM * plan.bound)
        load.stop()
        if watch is not None:
            watch.cancel()


async def run(plan: Plan, beside: Beside | None = None) -> Result:
    """Run, and check. Raises if a server does not come back, because the run then proves nothing."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        directory = Path(name)
        socket = directory / "authority.sock"
        events = Events(plan.seed)
        async with Authority(socket, events) as authority, CDN(plan.seed) as cdn:
            make, confirm_replicas = TOPOLOGIES[plan.topology]
            stage = make(
                Setting(
                    directory=directory,
                    authority=socket,
                    cdn=cdn,
                    count=plan.count,
                    server=plan.server,
                    build=plan.build,
                    bound=plan.bound,
                    seed=plan.seed,
                    confirm_replicas=confirm_replicas if plan.confirm_replicas is None else plan.confirm_replicas,
                )
            )
            ready = await asyncio.to_thread(stage.__enter__)
            try:
                load = Load(ready.addresses, authority, events, cdn, plan.seed)
                began = time.monotonic()
                watching = None if beside is None else beside(ready, load.history, directory)
                await _played(ready, load, plan, watching)
                seconds = time.monotonic() - began
            finally:
                await asyncio.to_thread(stage.__exit__, None, None, None)
            history = load.finished()
            told = {"source": events.told, "CDN": cdn.told}
            misdeeds = {
                f"{who}, {what}": count for who, counts in told.items() for what, count in counts.items() if count
            }
            misdeeds.pop("CDN, confirmed", None)
    return Result(plan, history, check(history, plan.bound), began, seconds, misdeeds)
