"""The app that every replica serves: rows with versions, cached reads of several kinds, writes that commit late.

It is configured by `CHAOS_REDIS`, `CHAOS_AUTHORITY`, `CHAOS_CDN`, `CHAOS_CONFIRM`, `CHAOS_REPLICA`, `CHAOS_SEED`,
`CHAOS_BOUND` and `CHAOS_BUILD`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chaos.authority import Rows
from chaos.broken import DeletingCache
from chaos.events import RowEvents
from fastapi_cacheinval import CacheMiddleware, CachePolicy, CacheTags, HTTPCache, cached, invalidates
from fastapi_cacheinval.cache import internals_of
from fastapi_cacheinval.contrib.cdn import CDNPurger, Webhook
from fastapi_cacheinval.errors import PurgeNotDelivered, ReplicasUnknown

__all__ = ["APP_FAILS", "NAMESPACE", "ROWS", "app"]

# The only status besides 200 of a handler that reads.
APP_FAILS = "503"

ROWS = 12
NAMESPACE = "chaos"

_REPLICA = os.environ.get("CHAOS_REPLICA", "0")
_LIFE = f"{_REPLICA}.{os.getpid()}"
_draw = random.Random(f"{os.environ.get('CHAOS_SEED', '')} {_REPLICA}")

# A handler waits for a few milliseconds before and after its read, and sometimes far longer.
_USUAL, _SLOW, _SLOWEST = (0.0, 0.015), (0.1, 0.4), (0.15, 0.4)
_SLOW_SHARE, _FAILING_SHARE = 0.06, 0.04

_rows = Rows(os.environ.get("CHAOS_AUTHORITY", ""))
_build = DeletingCache if os.environ.get("CHAOS_BUILD") == "delete-and-publish" else HTTPCache
cache = _build.from_url(
    os.environ.get("CHAOS_REDIS", "memory://"),
    namespace=NAMESPACE,
    staleness_bound=float(os.environ.get("CHAOS_BOUND", "1")),
    read_your_writes=True,
    confirm_replicas=int(os.environ.get("CHAOS_CONFIRM", "0")),
)

# Writes of another program come as events, and every purge goes to the CDN too.
_purger = CDNPurger(cache, Webhook(os.environ.get("CHAOS_CDN", "http://127.0.0.1:9/purge")))
cache.attach(_purger)
cache.attach(RowEvents(cache, _rows, _LIFE))

LONG = CachePolicy(ttl=3600, stale_while_revalidate=3600, stale_if_error=3600)
BRIEF = CachePolicy(ttl=0.3, stale_while_revalidate=60, stale_if_error=60)


def _live() -> bool:
    return internals_of(cache).engine.replica.live(cache.clock.now())


class Labelled:
    """The outermost middleware: it labels answers with the process and its lease, and counts the mutations inside."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.writing = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["path"] == "/-/state":
            await self._state(send)
            return
        if scope["path"] == "/-/health":
            await self._health(send)
            return
        unsafe = scope["method"] != "GET"
        live = _live()

        async def labelled(message: Message) -> None:
            if message["type"] == "http.response.start":
                label = [(b"x-life", _LIFE.encode()), (b"x-live", b"%d" % (live and _live()))]
                message = {**message, "headers": [*message.get("headers", ()), *label]}
            await send(message)

        self.writing += unsafe
        try:
            await self.app(scope, receive, labelled)
        finally:
            self.writing -= unsafe

    async def _state(self, send: Send) -> None:
        """Whether this process has no purge under way, and whether the CDN has confirmed every purge."""
        queued = cache.statistics().queue_length
        # If a request is cancelled, a task of the cache makes its purge.
        owned = len(internals_of(cache).runtime._owned) if cache.running else 0  # noqa: SLF001
        clean = not (self.writing or queued or owned)
        told = not _purger.state().waiting
        await _answer(send, b"%d%d" % (clean, clean and told))

    async def _health(self, send: Send) -> None:
        await _answer(send, json.dumps(_health()).encode())


def _health() -> dict[str, Any]:
    """Whether the process is well, and its memory, tasks and files."""
    statistics = cache.statistics()
    resident = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return {
        "well": statistics.connected and statistics.lease_remaining > 0 and not statistics.queue_length,
        "memory": int(resident) * os.sysconf("SC_PAGE_SIZE"),
        "tasks": len(asyncio.all_tasks()),
        "files": sum(1 for _ in Path("/proc/self/fd").iterdir()),
    }


async def _answer(send: Send, body: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(body)), (b"x-life", _LIFE.encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


_told = logging.StreamHandler()
_told.setFormatter(logging.Formatter("cacheinval:%(levelname)s:%(message)s"))
logging.getLogger("fastapi_cacheinval").addHandler(_told)

app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)
app.add_middleware(Labelled)


async def _pause() -> None:
    await asyncio.sleep(_draw.uniform(*(_SLOW if _draw.random() < _SLOW_SHARE else _USUAL)))


async def _read(rows: Sequence[int]) -> dict[str, Any]:
    """The answer of a handler: the versions that it read, and the time at which it began."""
    began = time.monotonic()
    await _pause()
    versions = await _rows.read(rows)
    await _pause()
    if _draw.random() < _FAILING_SHARE:
        raise HTTPException(int(APP_FAILS), "now and then it fails")
    return {"filled": began, "versions": versions}


@app.get("/rows", dependencies=[cached(LONG, tags=["rows"])])
async def list_rows() -> dict[str, Any]:
    return await _read(range(ROWS))


@app.get("/rows/{row}", dependencies=[cached(LONG, tags=["row:{row}"])])
async def read_row(row: int) -> dict[str, Any]:
    return await _read([row])


@app.get("/brief/{row}", dependencies=[cached(BRIEF, tags=["row:{row}"])])
async def read_briefly(row: int) -> dict[str, Any]:
    return await _read([row])


@app.get("/pairs/{row}/{other}", dependencies=[cached(LONG, tags=["row:{row}"])])
async def read_pair(row: int, other: int, tags: CacheTags) -> dict[str, Any]:
    found = await _read([row, other])
    tags.add(f"row:{other}")
    return found


@app.get("/spoken/{row}", dependencies=[cached(LONG, tags=["row:{row}"])])
async def read_aloud(row: int, accept_language: Annotated[str, Header()] = "en") -> dict[str, Any]:
    return {**await _read([row]), "language": accept_language}


@app.get("/slow/{row}", dependencies=[cached(LONG, tags=["row:{row}"])])
async def read_slowly(row: int) -> dict[str, Any]:
    began = time.monotonic()
    await asyncio.sleep(_draw.uniform(*_SLOWEST))
    return {**await _read([row]), "filled": began}


@app.post("/purges/{count}")
async def purge_much(count: int) -> dict[str, int]:
    """Purge many tags that no response has."""
    with contextlib.suppress(PurgeNotDelivered):
        await cache.invalidate(*(f"other:{number}" for number in range(count)))
    return {"count": count}


class Session:
    """It stands for a database session: others see its writes after its commit."""

    def __init__(self) -> None:
        self.written: list[tuple[int, int]] = []


async def open_session() -> AsyncIterator[Session]:
    """Commits after the response, as FastAPI's request-scoped `yield` dependencies do; it may fail after the commit."""
    session = Session()
    yield session
    await _pause()
    for row, number in session.written:
        await _rows.write(row, number, _LIFE)
    await _pause()
    if session.written and _draw.random() < _FAILING_SHARE:
        raise RuntimeError("lost the connection just after the commit")


async def _write(row: int, number: int, session: Session) -> dict[str, int]:
    await _pause()
    if _draw.random() < _FAILING_SHARE:
        raise HTTPException(409, "now and then it refuses")
    session.written.append((row, number))
    return {"row": row}


@app.put("/rows/{row}", dependencies=[invalidates("row:{row}", "rows")])
async def write_row(row: int, number: int, session: Annotated[Session, Depends(open_session)]) -> dict[str, int]:
    return await _write(row, number, session)


@app.patch("/rows/{row}", dependencies=[invalidates("row:{row}", "rows", soft=True)])
async def touch_row(row: int, number: int, session: Annotated[Session, Depends(open_session)]) -> dict[str, int]:
    return await _write(row, number, session)


@app.post("/imports/{row}")
async def import_row(row: int, number: int, response: Response, *, wait: bool = False) -> dict[str, int]:
    """Commits, and purges by hand. It sets the fields that the middleware would set, or the outcome `everywhere`."""
    await _rows.write(row, number, _LIFE)
    await _pause()
    try:
        await cache.invalidate(f"row:{row}", "rows", wait="all" if wait else None)
        response.headers["Cacheinval-Purge"] = "everywhere" if wait else "done"
    except ReplicasUnknown:
        response.headers["Cacheinval-Purge"] = "done"
    except PurgeNotDelivered:
        response.headers["Cacheinval-Purge"] = "queued"
        response.headers["Cache-Status"] = "app; detail=disconnected"
    return {"row": row}
