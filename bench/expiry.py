"""A hot key that expires under load: how often its handler runs, and who has to wait."""

from __future__ import annotations

import json
from itertools import pairwise

from bench.expiring import HANDLER_SECONDS, MODES
from bench.loading import own_client
from bench.processes import cores, serving
from bench.report import Options, Table, reached

__all__ = ["run"]

_CONNECTIONS = 50
_PAUSE = 0.025


def _most_per_expiry(calls: list[float], ttl: float) -> int:
    """The largest number of calls for one expiry: calls less than a quarter of a lifetime apart are for the same."""
    most = together = 1
    for before, after in pairwise(calls):
        together = together + 1 if after - before < ttl / 4 else 1
        most = max(most, together)
    return most


def _row(mode: str, ttl: float, seconds: float) -> tuple[str, ...]:
    with serving(mode, int(ttl * 1000), path="/items/0") as server:
        seen = own_client(server.port, urls=1, seconds=seconds, pause=_PAUSE, connections=_CONNECTIONS)
        calls: list[float] = json.loads(server.get("/calls")[2])
    if seen["errors"]:
        raise RuntimeError(f"{mode}: {seen['errors']} answers were no 200")
    most, slow = _most_per_expiry(calls, ttl), int(seen["over_50_ms"])
    judged = (
        ("", "") if mode in ("neither", "nothing expires") else ("1 call, 0 slow", reached(most == 1 and slow == 0))
    )
    return (
        mode,
        f"{seen['requests']:,}",
        str(len(calls) - 1),
        str(most),
        str(slow),
        f"{seen['p99_ms']:.1f}",
        f"{seen['slowest_ms']:.1f}",
        *judged,
    )


def run(options: Options) -> list[Table]:
    """One row for each way to meet an expiry."""
    ttl = 1.0 if options.quick else 2.0
    seconds = 1.5 if options.quick else 21.0
    return [
        Table(
            "A hot key expiring under load",
            f"uvicorn; one URL, lifetime {ttl:g} s, a handler of {HANDLER_SECONDS * 1000:.0f} ms; {_CONNECTIONS} "
            f"connections that ask {_PAUSE * 1000:.0f} ms after each answer, for {seconds:g} s, server and load "
            f"{cores()}. Slow is over 50 ms. The last two rows are for comparison: a policy that does nothing about an "
            "expiry, and a response that never expires, whose slow requests are the machine's.",
            (
                "policy",
                "requests",
                "expiries",
                "most calls per expiry",
                "slow requests",
                "p99 ms",
                "slowest ms",
                "target",
                "reached",
            ),
            [_row(mode, ttl, seconds) for mode in MODES],
        )
    ]
