"""`python -m chaos.soak [--seconds 600] [--seed N] [--topology pair]`: a long time under faults, in figures.

It fails if a promise did not hold, or if the run proves nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from statistics import median

from chaos.report import problems, table
from chaos.run import TOPOLOGIES, Plan, Result, run
from chaos.watch import Sample, Watch, recoveries

__all__ = ["main"]

_MIB = 1024 * 1024
# More than in a run that looks for violations, to see each recovery before the next fault.
_PEACE = 3.0
# The shares of the time at which the table shows a look.
_SHARES = {"a tenth of the time": 0.1, "half of it": 0.5, "the end": 1.0}
_FIGURES: dict[str, Callable[[Sample], float]] = {
    "memory, MiB": lambda sample: sample.memory / _MIB,
    "tasks": lambda sample: sample.tasks,
    "open files": lambda sample: sample.files,
}


def _taken(watch: Watch) -> Iterator[str]:
    samples = watch.of_the_first()
    yield "| what the first replica takes | " + " | ".join(f"at {when}" for when in _SHARES) + " | at most |"
    yield "| --- | " + " | ".join(["---:"] * (len(_SHARES) + 1)) + " |"
    looks = [samples[min(len(samples) - 1, int(len(samples) * share))] for share in _SHARES.values()]
    for name, figure in _FIGURES.items():
        shown = [*map(figure, looks), max(map(figure, samples))]
        yield f"| {name} | {' | '.join(f'{each:.0f}' for each in shown)} |"


def _recovered(watch: Watch, result: Result) -> Iterator[str]:
    yield "| until all replicas are in touch after | times | median s | most s |"
    yield "| --- | ---: | ---: | ---: |"
    found = recoveries(watch.samples, result.history.faults, result.plan.count)
    for kind, taken in sorted(found.items()):
        yield f"| {kind} | {len(taken)} | {median(taken):.2f} | {max(taken):.2f} |"


def _report(watch: Watch, result: Result) -> str:
    lines = watch.logged
    minutes = result.seconds / 60 * result.plan.count
    logged = ", ".join(f"{count} {level}" for level, count in sorted(lines.items())) or "nothing"
    return "\n".join(
        (
            table(result),
            *_taken(watch),
            "",
            *_recovered(watch, result),
            "",
            f"Logged by the package: {logged}; {lines.total() / minutes:.1f} lines a minute and replica.",
        )
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and print; 1 for a violation, or if the run proves nothing."""
    parser = argparse.ArgumentParser(prog="python -m chaos.soak", description="A long time under faults, in figures.")
    parser.add_argument("--seconds", type=float, default=600.0, help="for how long faults begin (600)")
    parser.add_argument("--topology", choices=list(TOPOLOGIES), default="pair", help="what the servers are (pair)")
    parser.add_argument("--bound", type=float, default=1.0, metavar="SECONDS", help="staleness_bound (1)")
    parser.add_argument("--seed", default=secrets.token_hex(3), help="of the faults and of the load; chosen, printed")
    chosen = parser.parse_args(arguments)
    plan = Plan(topology=chosen.topology, seconds=chosen.seconds, bound=chosen.bound, seed=chosen.seed, peace=_PEACE)
    watch = Watch()
    result = asyncio.run(run(plan, watch.beside))
    print(_report(watch, result), problems(result), sep="\n", end="", flush=True)
    return 0 if result.held else 1


if __name__ == "__main__":
    sys.exit(main())
