"""Requests for paths that no cached route can have: they go on as they came."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_cacheinval.core.outcome import Outcome, Reason, Result
from fastapi_cacheinval.dependencies import Cached, Invalidates, Tags
from fastapi_cacheinval.engine.internals import Internals
from fastapi_cacheinval.framework.deciding import tell_decision
from fastapi_cacheinval.routes.table import RouteTable

__all__ = ["Uncached"]

_UNKNOWN = Outcome(Result.BYPASS, reason=Reason.BYPASS, detail="unknown-route")


class _Unheard:
    """Takes the tags of what is not stored."""

    def add(self, *tags: str) -> None:
        pass


class Uncached:
    """Stands in the scope of every such GET in an exchange's place, and has nothing of the request's own.

    Should a cached route answer one all the same, as one that was added later may, that answer is
    not kept, and from then on no path is taken for one without.
    """

    def __init__(self, table: RouteTable, cache: Internals, face: object) -> None:
        self.table = table
        self._cache = cache
        # The cache of the middleware that the request has passed.
        self.face = face
        self.tags: Tags = _Unheard()

    async def look_up(self, request: Request, cached: Cached, partition: tuple[Any, ...]) -> None:
        """The path has a cached route."""
        self.table.doubt()
        self._cache.counters.answered(_UNKNOWN, None)
        if self._cache.feed.on:
            tell_decision(self._cache, request.scope, _UNKNOWN, began=self._cache.engine.now(), route=None)

    def declare(self, request: Request, invalidates: Invalidates) -> None:
        """`invalidates()` is inert on a safe method."""

    async def enter(self, handle: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """The request has come to a hooked route."""
        await handle(scope, receive, send)
