"""Whether a hit costs more when more is stored."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from bench.apps import plain_app
from bench.filling import BODY, big_cache, filled, grow
from bench.report import Options, Table, reached
from bench.requests import BATCH, Subject, get_scope, interleaved, medians

__all__ = ["run"]

_MOST = 1.1


_SHARED = ((b"content-type", b"application/json"), (b"cache-control", b"no-cache"))


class _Kept:
    """The parts of a response that a cache has to touch to serve it."""

    __slots__ = ("body", "created", "early_refresh_from", "fields", "until")

    def __init__(self, number: int) -> None:
        self.body = b'{"id":%d,"text":"%s"}' % (number, b"x" * (BODY - 20 - len(str(number))))
        own = ((b"content-length", b"%d" % len(self.body)), (b"etag", b'"%032d"' % number), (b"keys", b"%d" % number))
        self.fields = (*_SHARED, *own)
        self.created = 1.0 + number
        self.early_refresh_from = 2.0 + number
        self.until = 3.0 + number


class _Use:
    """What any policy of eviction keeps beside it."""

    __slots__ = ("kept", "uses")

    def __init__(self, kept: _Kept) -> None:
        self.kept = kept
        self.uses = 0


class _DictMiddleware:
    """The least that a cache can do: a dict under the same keys, and an answer made of what it leads to."""

    def __init__(self, app: ASGIApp, kept: dict[Any, _Use]) -> None:
        self.app = app
        self.kept = kept

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        use = self.kept[(scope["headers"][0][1], scope["path"], scope["query_string"], scope["scheme"])]
        use.uses += 1
        found = use.kept
        if found.early_refresh_from:
            headers = [*found.fields, (b"age", b"%d" % found.created), (b"cache-status", b"ttl=%d" % found.until)]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": found.body})


def _drawn(count: int, seed: int) -> Callable[[], Scope]:
    draw = random.Random(seed)
    return lambda: get_scope(f"/items/{draw.randrange(count)}")


async def _measure(counts: list[int], batches: int) -> dict[int, dict[str, float]]:
    cache = big_cache(counts[-1])
    app = await filled(cache)
    kept: dict[Any, _Use] = {}
    baseline = plain_app()
    baseline.add_middleware(_DictMiddleware, kept=kept)
    taken: dict[int, dict[str, float]] = {}
    done = 100
    for count in counts:
        grow(cache, done, count)
        done = max(done, count)
        for number in range(len(kept), count):
            scope = get_scope(f"/items/{number}")
            kept[(scope["headers"][0][1], scope["path"], b"", "http")] = _Use(_Kept(number))
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
        misses = plain - least["dict"]
        own = (hit - misses) / least["hit"]
        rows.append(
            (
                f"{count:,}",
                f"{hit:.2f}",
                f"{hit / least['hit']:.2f}",
                f"{plain:.2f}",
                f"{misses:.2f}",
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
            "whoever asks for it. That part is shown apart by a plain dict under equally many equal keys, in a "
            "middleware in the same place, that makes the same answer from as many objects and knows no rule: what it "
            "costs more than with 100 responses is taken for the misses. Judged is the hit without them.",
            (
                "stored responses",
                "hit µs",
                "hit ×",
                "plain dict µs",
                "misses µs",
                "hit without misses ×",
                "target",
                "reached",
            ),
            rows,
        )
    ]
