"""What a front hit costs, and what a route pays that is not cached, without a server."""

from __future__ import annotations

import asyncio
import random

from starlette.types import ASGIApp, Scope

from bench.apps import bare, cached_app, plain_app, stub_in_fastapi
from bench.report import Options, Table, reached
from bench.requests import BATCH, Subject, ask, get_scope, interleaved, medians

__all__ = ["run"]

_URLS = 1_000
_MOST = 3.0


async def _hits(options: Options) -> Table:
    draw = random.Random(1)  # the same draws in each run
    urls = options.pick(_URLS, 20)
    app = cached_app()
    for number in range(urls):
        await ask(app, get_scope(f"/items/{number}"))
    hit = await ask(app, get_scope("/items/1"))
    if not hit.field(b"cache-status").startswith(b"cacheinval; hit"):
        raise RuntimeError(f"not a hit: {hit.headers}")

    def drawn() -> Scope:
        return get_scope(f"/items/{draw.randrange(urls)}")

    apps: dict[str, ASGIApp] = {"bare": bare(hit), "stub": stub_in_fastapi(hit), "front hit": app}
    taken = medians(
        await interleaved({name: Subject(each, drawn) for name, each in apps.items()}, options.pick(600, 5))
    )
    above = taken["front hit"] - taken["stub"]
    return Table(
        "Front hit, in process",
        f"Batches of {BATCH} GETs for keys drawn from {urls:,} URLs, the three apps in turn; medians of the batches. "
        "1 KiB of JSON with two tags, default configuration (`Age`, `Cache-Status`, `ETag`, `Surrogate-Key`, the "
        "hand-over check, no telemetry SDK). Bare and stub send the bytes of a hit: the stub is a middleware in the "
        "cache's place in the same FastAPI app, bare is an ASGI function without any framework.",
        ("app", "µs per request", "above the stub", "target", "reached"),
        (
            ("bare ASGI", f"{taken['bare']:.2f}", "", "", ""),
            ("stub middleware", f"{taken['stub']:.2f}", "", "", ""),
            (
                "front hit",
                f"{taken['front hit']:.2f}",
                f"{above:.2f}",
                f"at most {_MOST:g} µs above (aim 1.5)",
                reached(above <= _MOST),
            ),
        ),
    )


async def _uncached(options: Options) -> Table:
    apps: dict[str, ASGIApp] = {"without": plain_app(), "with": cached_app()}

    def plain() -> Scope:
        return get_scope("/plain/1")

    taken = medians(
        await interleaved({name: Subject(each, plain) for name, each in apps.items()}, options.pick(400, 5))
    )
    above = taken["with"] - taken["without"]
    return Table(
        "A route that is not cached, in process",
        "The same FastAPI route without a policy, in an app with and in one without the middleware; batches of "
        f"{BATCH} in turn, medians.",
        ("app", "µs per request", "added", "target", "reached"),
        (
            ("without the middleware", f"{taken['without']:.2f}", "", "", ""),
            (
                "with the middleware",
                f"{taken['with']:.2f}",
                f"{above:.2f}",
                f"at most {_MOST:g} µs",
                reached(above <= _MOST),
            ),
        ),
    )


def run(options: Options) -> list[Table]:
    """The two tables."""

    async def both() -> list[Table]:
        return [await _hits(options), await _uncached(options)]

    return asyncio.run(both())
