"""`python -m bench [--quick] [--no-wrk] [NAME ...]`: all measurements, or those that are named.

`python -m bench guard [--against COMMIT]` compares the working tree with the last tag, and is none of them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from bench import guard
from bench.report import Options, Table, machine

__all__ = ["NAMES", "main"]

NAMES = {
    "in_process": "bench.in_process",
    "uvicorn": "bench.through_uvicorn",
    "server": "bench.server",
    "route_hit": "bench.route_hit",
    "cold_burst": "bench.cold_burst",
    "expiry": "bench.expiry",
    "codec": "bench.codec",
    "l1": "bench.l1",
    "scaling": "bench.scaling",
    "purge": "bench.purge",
    "telemetry": "bench.telemetry",
    "propagation": "bench.propagation",
    "replicas": "bench.replicas",
    "sources": "bench.sources",
    "load": "bench.load",
    "publishers": "bench.publishers",
    "confirming": "bench.confirming",
    "inspector": "bench.inspector",
}


def _one(name: str, options: Options) -> None:
    module = import_module(NAMES[name])
    if name == "l1":
        module.main()
        return
    run: Callable[[Options], list[Table]] = module.run
    for table in run(options):
        print(table.markdown(), flush=True)


def _each_alone(names: Sequence[str], flags: Sequence[str]) -> int:
    """Each in a process of its own, so that none pays for what another has left in memory."""
    failed = []
    for name in names:
        command = [sys.executable, "-m", "bench", name, "--no-header", *flags]
        if subprocess.run(command, cwd=Path(__file__).parent.parent, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for and print it; 1 where something could not be measured, whatever the figures are."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure, and print Markdown tables.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all without one; one of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it runs, not how fast")
    parser.add_argument("--no-wrk", action="store_true", help="load with our own client, install nothing")
    parser.add_argument("--against", metavar="COMMIT", help="what the guard compares with; the last tag without it")
    parser.add_argument("--no-header", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.names if name not in NAMES and chosen.names != ["guard"]]
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(NAMES)}")
    if not chosen.no_header:
        print(f"Measured on {time.strftime('%Y-%m-%d', time.gmtime())}: {machine()}\n", flush=True)
    if chosen.names == ["guard"]:
        return guard.main(Options(quick=chosen.quick, against=chosen.against))
    if len(chosen.names) == 1:
        _one(chosen.names[0], Options(quick=chosen.quick, wrk=not chosen.no_wrk))
        return 0
    flags = [flag for flag, on in (("--quick", chosen.quick), ("--no-wrk", chosen.no_wrk)) if on]
    status = _each_alone(chosen.names or list(NAMES), flags)
    print(f"Load averages at the end: {', '.join(f'{value:.2f}' for value in os.getloadavg())}.")
    return status


if __name__ == "__main__":
    sys.exit(main())
