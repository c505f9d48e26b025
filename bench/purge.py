"""How long a purge holds the event loop."""

from __future__ import annotations

import asyncio
import time
from statistics import median

from bench.filling import BODY, big_cache, filled, grow
from bench.report import Options, Table, reached
from bench.requests import ask, get_scope

__all__ = ["run"]

_MOST_MS = 1.0
_TIMES = 50


async def _measure(count: int) -> dict[str, list[float]]:
    """Milliseconds of each purge of a tag that all responses carry, soft ones first."""
    cache = big_cache(count)
    app = await filled(cache)
    grow(cache, 100, count)
    taken: dict[str, list[float]] = {"soft": [], "hard": []}
    for kind, each in taken.items():
        for _ in range(_TIMES):
            began = time.perf_counter()
            await cache.invalidate("items", soft=kind == "soft")
            each.append((time.perf_counter() - began) * 1000)
    # The last one answers for all: its response was there, and is no longer handed over.
    answer = await ask(app, get_scope(f"/items/{count - 1}"))
    if b"hit" in answer.field(b"cache-status"):
        raise RuntimeError(f"the purge was not obeyed: {answer.headers}")
    return taken


def run(options: Options) -> list[Table]:
    """One row for soft purges, one for hard ones."""
    count = options.pick(1_000_000, 1_000)
    taken = asyncio.run(_measure(count))
    return [
        Table(
            "Purge of a tag",
            f"`await cache.invalidate(tag)` of a tag that {count:,} stored responses carry (bodies of {BODY} bytes), "
            f"{_TIMES} times each; wall time, which the event loop is held for, since nothing in it waits.",
            ("purge", "median ms", "slowest ms", "target", "reached"),
            [
                (
                    kind,
                    f"{median(each):.4f}",
                    f"{max(each):.4f}",
                    f"slowest under {_MOST_MS:g} ms",
                    reached(max(each) < _MOST_MS),
                )
                for kind, each in taken.items()
            ],
        )
    ]
