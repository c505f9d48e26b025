"""A report that is cut: Starlette's streams swallow a cancellation, and return without the last of their body."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import StreamingResponse

from fastapi_cacheinval import cached
from tests.helpers.http import Call, ask, scope_of

ROWS = [b"row %d\n" % number * 100 for number in range(3)]
WHOLE = b"".join(ROWS)
FRESH = {"cache-control": "max-age=60"}


class HandsOn(BaseHTTPMiddleware):
    """Ends each body when the app inside has returned."""

    async def dispatch(self, request: Request, call_next: Any) -> Any:
        """Hand on."""
        return await call_next(request)


MODES = ["by headers", "shared"]


class Report:
    """Rows as a stream, of which the first is cut after some; and how often it was asked for."""

    def __init__(self, rows: int = 2, headers: dict[str, str] | None = None) -> None:
        self.rows, self.headers, self.calls = rows, FRESH | (headers or {}), 0

    async def stream(self) -> AsyncIterator[bytes]:
        """The rows."""
        cut = self.calls == 1
        for row in ROWS[: self.rows if cut else None]:
            yield row
        if cut:
            producer = asyncio.get_running_loop().create_future()
            producer.cancel()
            await producer

    async def answer(self) -> StreamingResponse:
        """A response of them."""
        self.calls += 1
        return StreamingResponse(self.stream(), headers=self.headers)

    async def plain(self, _request: Any) -> StreamingResponse:
        """The same as an endpoint of Starlette's."""
        return await self.answer()

    async def asgi(self, scope: Any, _receive: Any, send: Any) -> None:
        """The same as an app, which returns in the middle of its body."""
        self.calls += 1
        fields = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        for row in ROWS[: self.rows if self.calls == 1 else None]:
            await send({"type": "http.response.body", "body": row, "more_body": True})
        if self.calls > 1:
            await send({"type": "http.response.body", "body": b""})


def routed(report: Report, mode: str, **options: Any) -> APIRouter:
    """A router with the report."""
    router = APIRouter(**options)
    depends = [cached(ttl=60, shared=True)] if mode == "shared" else []
    router.get("/report", dependencies=depends)(report.answer)
    return router


def in_app(report: Report, mode: str, layers: list[Any]) -> tuple[Any, str]:
    """Layers of the application."""
    app = FastAPI(middleware=[Middleware(layer) for layer in layers])
    app.include_router(routed(report, mode))
    return app, "/report"


async def asked(app: Any, path: str, **more: Any) -> bytes:
    """What a client of the report gets."""
    answer = await ask(app, path, **more)
    return gzip.decompress(answer.body) if answer.headers.get("content-encoding") == "gzip" else answer.body


async def only_the_whole_is_kept(app: Any, path: str, report: Report, **more: Any) -> None:
    """The first answer is cut and not kept; the next is whole, and is."""
    await asyncio.gather(Call(app, scope_of(path, **more)).task, return_exceptions=True)
    for _ in range(3):
        assert await asked(app, path, **more) == WHOLE
    assert report.calls == 2
