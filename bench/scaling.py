"""Whether a hit costs more when more is stored."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from bench.filling import BODY, big_cache, filled, grow
from bench.report import Options, Table, reached
from bench.requests import BATCH, Subject, get_scope, interleaved, medians

__all__ = ["run"]

_MOST = 1.1


class _Kept:
    """The parts of a response that any cache has to touch, and nothing that decides about them."""

    __slots__ = ("body", "created", "fields", "until")

    def __init__(self, number: int) -> None:
        self.body = b'{"id":%d,"text":"%s"}' % (number, b"x" * (BODY - 20 - len(str(number))))
        self.fields = tuple((b"name-%d" % each, b"value-%d-%d" % (each, number)) for each in range(5))
        self.created = 1.0 + number
        self.until = 2.0 + number


def _dict_app(kept: dict[Any, _Kept]) -> ASGIApp:
    """The least that a cache can do: a dict under the same keys, and an answer made of what it leads to."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found = kept[(scope["headers"][0][1], scope["path"], scope["query_string"], scope["scheme"])]
        headers = [*found.fields, (b"age", b"%d" % found.created), (b"cache-status", b"ttl=%d" % found.until)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": found.body})

    return app


def _drawn(count: int, seed: int) -> Callable[[], Scope]:
    draw = random.Random(seed)
    return lambda: get_scope(f"/items/{draw.randrange(count)}")


async def _measure(counts: list[int], batches: int) -> dict[int, dict[str, float]]:
    cache = big_cache(counts[-1])
    app = await filled(cache)
    kept: dict[Any, _Kept] = {}
    baseline = _dict_app(kept)
    taken: dict[int, dict[str, float]] = {}
    done = 100
    for count in counts:
        grow(cache, done, count)
        done = max(done, count)
        for number in range(len(kept), count):
            scope = get_scope(f"/items/{number}")
            kept[(scope["headers"][0][1], scope["path"], b"", "http")] = _Kept(number)
        subjects = {"hit": Subject(app, _drawn(count, 1)), "dict": Subject(baseline, _drawn(count, 2))}
        before = cache.statistics().misses
        taken[count] = medians(await interleaved(subjects, batches))
        if cache.statistics().misses != before:
            raise RuntimeError(f"not all requests were hits at {count} stored responses")
    return taken


def run(options: Options) -> list[Table]:
    """One row for each number of stored responses."""
    counts = [10**power for power in range(2, 4 if options.quick else 7)]
    taken = asyncio.run(_measure(counts, options.pick(300, 5)))
    least = taken[counts[0]]
    rows: list[tuple[str, ...]] = []
    for count in counts:
        hit, plain = taken[count]["hit"], taken[count]["dict"]
        own = (hit - plain) / (least["hit"] - least["dict"])
        rows.append(
            (
                f"{count:,}",
                f"{hit:.2f}",
                f"{hit / least['hit']:.2f}",
                f"{plain:.2f}",
                f"{plain / least['dict']:.2f}",
                f"{own:.2f}",
                f"within {_MOST}×",
                reached(own <= _MOST),
            )
        )
    return [
        Table(
            "Hit cost against stored responses",
            f"The whole hit in process, keys drawn uniformly, bodies of {BODY} bytes, `l1_max_bytes` raised to hold "
            f"all; batches of {BATCH}, medians. What is touched at random in memory misses the processor's caches "
            "whoever asks for it: the baseline is a dict under equally many equal keys that builds the same answer "
            "from objects with the same parts, without any rule, in turn with the cache. What is left when it is "
            "taken off is the cache's own, and judged.",
            (
                "stored responses",
                "hit µs",
                "hit ×",
                "plain dict µs",
                "plain dict ×",
                "hit less plain dict ×",
                "target",
                "reached",
            ),
            rows,
        )
    ]
