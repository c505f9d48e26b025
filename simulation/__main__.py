"""`python -m simulation`: seeds for some time, the story of one, or what the check catches."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

from simulation.ablations import ABLATIONS, WHOLE
from simulation.report import commit, missing, next_seed, record, story, tables
from simulation.run import Totals, caught, run, run_all
from simulation.world import Told

__all__ = ["main"]

_CHUNK = 10
# Fewer seeds need not meet every kind of fault.
_TELLING = 100


def _many(first: int, seeds: int | None, seconds: float, processes: int) -> Totals:
    """Seeds from the first on, so many of them or for so long, side by side."""
    deadline = time.monotonic() + seconds
    end = None if seeds is None else first + seeds
    totals = Totals()
    with ProcessPoolExecutor(processes) as pool:
        running: set[Future[Totals]] = set()
        while True:
            while len(running) < processes and (time.monotonic() < deadline if end is None else first < end):
                last = first + _CHUNK if end is None else min(first + _CHUNK, end)
                running.add(pool.submit(run_all, range(first, last)))
                first = last
            if not running:
                return totals
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for each in done:
                totals.add(each.result())


def _replay(seed: int, ablation: str | None, most: int) -> int:
    trace: list[Told] = []
    chosen = WHOLE if ablation is None else next(each for each in ABLATIONS if each.name == ablation)
    world = run(seed, chosen, trace)
    print(story(world, most))
    return 0 if world.truth.violation is None else 1


def _ablations(tries: int) -> int:
    unseen = 0
    for ablation in ABLATIONS:
        found = caught(ablation, tries)
        if found is None:
            unseen += 1
            print(f"{ablation.name}: NOT caught in {tries} seeds", flush=True)
        else:
            seed, violation = found
            print(f"{ablation.name}: seed {seed} breaks {violation.promise}: {violation.text}", flush=True)
    return 1 if unseen else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked for; 1 where a promise was broken, or the run could not have shown it."""
    parser = argparse.ArgumentParser(
        prog="python -m simulation", description="Look for a schedule that breaks a promise."
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long seeds are begun (60)")
    parser.add_argument("--seeds", type=int, help="so many seeds, however long they take")
    parser.add_argument("--first", type=int, help="the first seed (0; with --record the first that is not in the log)")
    parser.add_argument("--processes", type=int, default=2, help="how many run side by side (2)")
    parser.add_argument("--record", action="store_true", help="add the run to simulation/LOG.md")
    parser.add_argument("--replay", type=int, metavar="SEED", help="run one seed and tell its story")
    parser.add_argument("--ablation", choices=[each.name for each in ABLATIONS], help="replay without this rule")
    parser.add_argument("--trace", type=int, default=80, metavar="LINES", help="how much of the story is told (80)")
    parser.add_argument("--ablations", action="store_true", help="take out each rule in turn until a promise breaks")
    chosen = parser.parse_args(arguments)
    if chosen.replay is not None:
        return _replay(chosen.replay, chosen.ablation, chosen.trace)
    if chosen.ablations:
        return _ablations(chosen.seeds or 200)
    first = chosen.first if chosen.first is not None else next_seed() if chosen.record else 0
    running = commit() if chosen.record else ""
    began = time.monotonic()
    totals = _many(first, chosen.seeds, chosen.seconds, chosen.processes)
    elapsed = time.monotonic() - began
    print(tables(totals, elapsed))
    for seed, violation in sorted(totals.violations, key=lambda found: found[0]):
        print(f"seed {seed} at {violation.at:.6f}, {violation.promise}: {violation.text}")
        print(f"  make simulate ARGS='--replay {seed}'")
    rare = missing(totals) if totals.seeds >= _TELLING else []
    for text in rare:
        print(f"too rare to prove anything: {text}", file=sys.stderr)
    if chosen.record:
        record(totals, first, elapsed, running)
    return 1 if totals.violations or rare else 0


if __name__ == "__main__":
    sys.exit(main())
