"""`python -m chaos [--seconds 60] [--seed N] [--topology pair ...] [--server uvicorn ...] [--void 15]`.

It fails if a promise did not hold, or if a run proves nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

from chaos.hosts import possible
from chaos.report import problems, table
from chaos.run import TOPOLOGIES, Plan, Topology, run
from tests.servers.processes import ServerName

__all__ = ["main"]


def _held(plan: Plan) -> bool:
    """Run the build under test; True if the result holds."""
    result = asyncio.run(run(plan))
    print(table(result), problems(result), sep="\n", end="", flush=True)
    return result.held


def _found_out(plan: Plan) -> bool:
    """Run the broken build: if it passes, the run above has proved nothing."""
    result = asyncio.run(run(plan))
    print(table(result), flush=True)
    if not result.verdict.violations:
        print("void: a build that deletes and publishes passes as well", flush=True)
    return bool(result.verdict.violations)


def _possible(topologies: Sequence[Topology]) -> list[Topology]:
    """The topologies that can be made here; prints the one that cannot."""
    if "sentinels" in topologies and not possible():
        print("left out: sentinels, which need root and ip(8) for hosts in network namespaces", flush=True)
        return [each for each in topologies if each != "sentinels"]
    return list(topologies)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run under each server, then the broken build; 1 for a violation, or if a run proves nothing."""
    parser = argparse.ArgumentParser(
        prog="python -m chaos", description="Real replicas, real faults, every read checked."
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long faults begin, per server (60)")
    parser.add_argument(
        "--void", type=float, default=15.0, metavar="SECONDS", help="the same for the broken build (15)"
    )
    parser.add_argument("--server", nargs="+", choices=get_args(ServerName), default=["uvicorn"], help="one or several")
    parser.add_argument(
        "--topology", nargs="+", choices=list(TOPOLOGIES), default=list(TOPOLOGIES), help="one or several"
    )
    parser.add_argument("--confirm", type=int, help="confirm_replicas (1 with Sentinels, else 0)")
    parser.add_argument("--replicas", type=int, default=3, help="how many processes (3)")
    parser.add_argument("--bound", type=float, default=1.0, metavar="SECONDS", help="staleness_bound (1)")
    parser.add_argument(
        "--seed", default=secrets.token_hex(3), help="of the faults and of the load; chosen and printed"
    )
    chosen = parser.parse_args(arguments)
    plan = Plan(replicas=chosen.replicas, seconds=chosen.seconds, bound=chosen.bound, seed=chosen.seed)
    plan = replace(plan, confirm_replicas=chosen.confirm)
    held: list[bool] = []
    for topology in _possible(chosen.topology):
        # In namespaces only one of the servers is started.
        servers: list[ServerName] = ["uvicorn"] if topology == "sentinels" else chosen.server
        held += [_held(replace(plan, topology=topology, server=server)) for server in servers]
    if chosen.void > 0:
        broken = replace(plan, server=chosen.server[0], build="delete-and-publish", seconds=chosen.void)
        held.append(_found_out(broken))
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
