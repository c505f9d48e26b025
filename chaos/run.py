"""One run: the stage, the load and the faults side by side, and the check of what came of it."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from chaos.app import APP_FAILS
from chaos.authority import Authority
from chaos.cdn import CDN
from chaos.checker import Verdict, check
from chaos.events import Events
from chaos.faults import REPLICAS, SERVER, play
from chaos.history import History, Outcome
from chaos.load import Load
from chaos.stage import Build, Stage, stage
from tests.servers.processes import ServerName

__all__ = ["Plan", "Result", "run"]

# The load goes on for so many bounds after the last fault: what was made good has to be good.
_CALM = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is run: `seconds` is for how long faults begin, `bound` the staleness bound in seconds."""

    server: ServerName = "uvicorn"
    build: Build = "cacheinval"
    replicas: int = 3
    seconds: float = 60.0
    bound: float = 1.0
    seed: str = "1"


@dataclass(frozen=True, slots=True)
class Result:
    """What was seen and what it comes to; `began` is the load's beginning, `seconds` how long it lasted."""

    plan: Plan
    history: History
    verdict: Verdict
    began: float
    seconds: float

    @property
    def hits(self) -> int:
        """Reads that were answered with what was stored, stale or not."""
        return sum("hit" in read.cache_status.replace(";", " ").split() for read in self.history.reads)

    @property
    def failed(self) -> int:
        """Reads that were answered with a status that no handler gives: the cache's trouble made the app's."""
        return sum(count for what, count in self.history.unanswered.items() if what.isdigit() and what != APP_FAILS)

    @property
    def events(self) -> int:
        """Writes of another program whose events were purged."""
        return sum(write.other and write.outcome is Outcome.DONE for write in self.history.writes)

    @property
    def kept(self) -> int:
        """Reads that the CDN answered with what it kept."""
        return sum(read.cdn and read.filled < read.began for read in self.history.reads)

    @property
    def void(self) -> str:
        """Why the run proves nothing; empty where it does."""
        if not self.history.faults:
            return "no fault was made"
        if not self.verdict.at_risk or not self.hits:
            return "no read could have been stale"
        if not self.events or not self.kept or not self.verdict.cdn:
            return "no event was purged, or nothing that the CDN kept could have been stale"
        return ""


async def _played(stage: Stage, load: Load, plan: Plan) -> None:
    until = time.monotonic() + plan.seconds
    note = load.history.faults.append
    async with asyncio.TaskGroup() as clients:
        for work in load.work():
            clients.create_task(work)
        async with asyncio.TaskGroup() as faults:
            for number, lane in enumerate((SERVER, REPLICAS)):
                faults.create_task(play(lane, stage, random.Random(f"{plan.seed} f{number}"), until, note))
        load.cdn.well = True
        await asyncio.sleep(_CALM * plan.bound)
        load.stop()


async def run(plan: Plan) -> Result:
    """Run, and check; raises where a server does not come back, and then nothing is proved."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        directory = Path(name)
        socket = directory / "authority.sock"
        events = Events(plan.seed)
        async with Authority(socket, events) as authority, CDN(plan.seed) as cdn:
            setting = stage(
                directory,
                plan.replicas,
                server=plan.server,
                build=plan.build,
                bound=plan.bound,
                seed=plan.seed,
                authority=socket,
                cdn=cdn.url,
            )
            ready = await asyncio.to_thread(setting.__enter__)
            try:
                load = Load(ready.ports, authority, events, cdn, plan.seed)
                began = time.monotonic()
                await _played(ready, load, plan)
                seconds = time.monotonic() - began
            finally:
                await asyncio.to_thread(setting.__exit__, None, None, None)
            history = load.finished()
    return Result(plan, history, check(history, plan.bound), began, seconds)
