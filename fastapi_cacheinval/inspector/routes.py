"""The routes, as the page lists them: what each of them did in this process, and what its declarations say."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from heapq import nlargest
from itertools import islice
from time import monotonic
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from fastapi_cacheinval.cache import HTTPCache
from fastapi_cacheinval.core.audit import Audit, RouteAudit
from fastapi_cacheinval.core.statistics import RouteStatistics
from fastapi_cacheinval.errors import CacheNotRunning
from fastapi_cacheinval.inspector.plain import Told, plain

__all__ = ["Routes"]

_SORTS = ("requests", "hits", "misses", "stale", "saved_seconds", "size_bytes", "responses", "errors")
_MOST_NAMED = 20
_MOST_HOLES = 50
# Real seconds for which the counts serve everybody who asks, of which there may be a thousand.
_COUNT_EVERY = 0.9
_NOTHING = RouteStatistics()


class Routes:
    """Answers about the routes of one cache."""

    def __init__(self, cache: HTTPCache) -> None:
        self._cache = cache
        self._counts: Mapping[str, RouteStatistics] = {}
        self._counted = -_COUNT_EVERY
        self._audit = Audit()
        self._by_label: Mapping[str, RouteAudit] = {}
        self._holes: tuple[str, ...] = ()
        self._auditing = False

    async def show(self, request: Request) -> Response:
        """`GET api/routes?sort=hits&q=&offset=0&limit=25`: one page of the routes, the largest first."""
        sort, text = request.query_params.get("sort", "requests"), request.query_params.get("q", "")
        if sort not in _SORTS:
            return Told({"error": f"sort is one of {', '.join(_SORTS)}."}, 400)
        offset, limit = _number(request, "offset", 0, 1_000_000), _number(request, "limit", 25, 100)
        await self._look()
        # Very many routes take a while to look through: the loop goes on meanwhile.
        return Told(await asyncio.to_thread(self._chosen, sort, text, offset, limit))

    def _chosen(self, sort: str, text: str, offset: int, limit: int) -> dict[str, Any]:
        counts, declared = self._counted_by_route(), self._by_label
        asked = [(label, each) for label, each in counts.items() if text in label]
        # What was never asked comes last, in the order of the app.
        quiet = [label for label in declared if label not in counts]
        rest = [label for label in quiet if text in label]
        rows = nlargest(offset + limit, asked, key=lambda item: getattr(item[1], sort))[offset:]
        after = max(0, offset - len(asked))
        rows += [(label, _NOTHING) for label in islice(rest, after, after + limit - len(rows))]
        return {
            "routes": [_row(label, each, declared.get(label)) for label, each in rows],
            "matching": len(asked) + len(rest),
            "all": len(counts) + len(quiet),
            "offset": offset,
            "holes": self._holes[:_MOST_HOLES],
            "more_holes": max(0, len(self._holes) - _MOST_HOLES),
        }

    def _counted_by_route(self) -> Mapping[str, RouteStatistics]:
        """The counts of routes, at most a second old."""
        if monotonic() - self._counted >= _COUNT_EVERY:
            self._counts, self._counted = self._cache.statistics().routes, monotonic()
        return self._counts

    async def _look(self) -> None:
        """Read the declarations, in a thread: of very many routes that takes a while the first time."""
        if self._auditing:
            return
        self._auditing = True
        try:
            await asyncio.to_thread(self._read)
        finally:
            self._auditing = False

    def _read(self) -> None:
        try:
            audit = self._cache.audit()
        except CacheNotRunning:
            return
        if audit is not self._audit:
            self._audit, self._holes = audit, audit.holes
            self._by_label = {each.route: each for each in audit.routes}


def _row(label: str, counts: RouteStatistics, declared: RouteAudit | None) -> dict[str, Any]:
    row = {"route": label, "requests": counts.requests, **plain(counts)}
    if declared is not None:
        row["declared"] = {
            "shared_by": declared.shared_by,
            "why": declared.why,
            "partition_by": declared.partition_by,
            "guarded_by": declared.guarded_by,
            "key": declared.key[:_MOST_NAMED],
            "tags": declared.tags[:_MOST_NAMED],
            "adds_tags": declared.adds_tags,
            "ttl": declared.ttl,
            "stale_while_revalidate": declared.stale_while_revalidate,
            "stale_if_error": declared.stale_if_error,
            "lookup": declared.lookup,
            "front_off": declared.front_off,
            "purged_by": declared.purged_by[:_MOST_NAMED],
        }
    return row


def _number(request: Request, name: str, default: int, most: int) -> int:
    """A number of the query within its bounds; the default for what is none."""
    text = request.query_params.get(name, "")
    return min(int(text), most) if text.isdecimal() and len(text) < 10 else default
