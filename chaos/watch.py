"""The memory, tasks, files and log lines of a run's replicas, and how soon they recover from a fault."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chaos.client import Connection, Lost
from chaos.history import Fault, History
from chaos.stage import Stage

__all__ = ["LOGGED", "Sample", "Watch", "recoveries"]

LOGGED = "cacheinval:"
"""The beginning of each line of the package's own log; the level follows."""

_PAUSE = 0.1
_PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at one replica: whether it is in touch and has nothing queued, and its bytes, tasks and open files."""

    at: float
    replica: int
    well: bool
    memory: int = 0
    tasks: int = 0
    files: int = 0


@dataclass(slots=True)
class Watch:
    """All looks at all replicas. The first replica is never killed nor shut down, so that its leaks add up."""

    samples: list[Sample] = field(default_factory=list[Sample])
    logged: Counter[str] = field(default_factory=Counter[str])

    async def beside(self, stage: Stage, history: History, directory: Path) -> None:
        """Look until cancelled, then read what was logged."""
        stage.spared = 1
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(stage.count):
                    group.create_task(self._look(stage, number))
        finally:
            self.logged = await asyncio.to_thread(_logged, directory)

    async def _look(self, stage: Stage, number: int) -> None:
        connection = Connection(stage.addresses[number])
        try:
            while True:
                try:
                    answer = await connection.ask("GET", "/-/health", _PATIENCE)
                except Lost:
                    self.samples.append(Sample(time.monotonic(), number, well=False))
                else:
                    self.samples.append(Sample(time.monotonic(), number, **json.loads(answer.body)))
                await asyncio.sleep(_PAUSE)
        finally:
            connection.close()

    def of_the_first(self) -> Sequence[Sample]:
        """The looks at the first replica that got an answer."""
        return [sample for sample in self.samples if sample.replica == 0 and sample.memory]


def _logged(directory: Path) -> Counter[str]:
    levels: Counter[str] = Counter()
    for path in directory.rglob("*.out"):
        with path.open(encoding="utf-8", errors="replace") as lines:
            levels.update(line.split(":", 2)[1] for line in lines if line.startswith(LOGGED))
    return levels


def _well_after(samples: Sequence[Sample], moment: float, count: int) -> float | None:
    """The first moment from which every replica has been found well after `moment`; None if one never was."""
    well: dict[int, float] = {}
    for sample in samples:
        if sample.well and sample.at >= moment:
            well.setdefault(sample.replica, sample.at)
            if len(well) == count:
                return sample.at
    return None


def recoveries(samples: Sequence[Sample], faults: Sequence[Fault], count: int) -> dict[str, list[float]]:
    """The seconds from the end of a fault until all replicas were well, by its kind.

    A fault counts if no other one was under way meanwhile.
    """
    samples = sorted(samples, key=lambda sample: sample.at)
    taken: defaultdict[str, list[float]] = defaultdict(list)
    for fault in faults:
        well = _well_after(samples, fault.ended, count)
        others = (other for other in faults if other is not fault)
        if well is not None and not any(other.began < well and other.ended > fault.ended for other in others):
            taken[fault.kind].append(well - fault.ended)
    return dict(taken)
