"""Many clients at once on a page that is not stored: how often its handler runs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field

from fastapi import FastAPI
from starlette.exceptions import HTTPException

from bench.report import Options, Table, reached
from bench.requests import Answer, ask, get_scope
from fastapi_cacheinval import CacheMiddleware, cached

__all__ = ["run"]

_HANDLER_SECONDS = 0.1


@dataclass(slots=True)
class _Page:
    """A handler, what its first call does, and how often it was called."""

    first: str
    calls: int = 0
    entered: asyncio.Event = field(default_factory=asyncio.Event)

    def app(self) -> FastAPI:
        app = FastAPI()
        app.add_middleware(CacheMiddleware)

        @app.get("/page", dependencies=[cached(ttl=60)])
        async def page() -> dict[str, int]:
            self.calls += 1
            mine = self.calls
            self.entered.set()
            await asyncio.sleep(_HANDLER_SECONDS)
            if mine == 1 and self.first == "fails":
                raise HTTPException(503, "the first call fails")
            return {"call": mine}

        return app


async def _burst(first: str, clients: int) -> tuple[int, Counter[str], float]:
    """Handler calls, what the clients were told, and seconds until the last of them was."""
    page = _Page(first)
    app = page.app()
    told: Counter[str] = Counter()

    async def client() -> None:
        answer: Answer = await ask(app, get_scope("/page"))
        told[str(answer.status)] += 1

    began = time.perf_counter()
    tasks = [asyncio.create_task(client()) for _ in range(clients)]
    if first == "is cancelled":
        await page.entered.wait()
        tasks[0].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await tasks[0]
        told["cancelled"] += 1
        tasks = tasks[1:]
    await asyncio.gather(*tasks)
    return page.calls, told, time.perf_counter() - began


def run(options: Options) -> list[Table]:
    """One row for each way that the first forward can end."""
    clients = options.pick(200, 20)
    rows: list[tuple[str, ...]] = []
    for first, most in (("succeeds", 1), ("fails", 2), ("is cancelled", 2)):
        calls, told, seconds = asyncio.run(_burst(first, clients))
        answered = ", ".join(f"{count} × {what}" for what, count in sorted(told.items()))
        good = calls == most and told["200"] >= clients - (most - 1)
        target = f"{most} call{'s' if most > 1 else ''}"
        rows.append(
            (f"the first forward {first}", str(calls), answered, f"{seconds * 1000:.0f}", target, reached(good))
        )
    return [
        Table(
            "Cold burst, one process",
            f"{clients} requests at the same moment for one URL that is not stored, in process; the handler takes "
            f"{_HANDLER_SECONDS * 1000:.0f} ms. The time is that until the last client has its answer.",
            ("burst", "handler calls", "answers", "ms", "target", "reached"),
            rows,
        )
    ]
