"""What the page asks for: the state of the cache, its routes, what it keeps, and a search."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import nlargest
from math import isinf
from time import monotonic, time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from fastapi_cacheinval.cache import HTTPCache, internals_of
from fastapi_cacheinval.core.statistics import RouteStatistics
from fastapi_cacheinval.engine.contents import Contents, find, look_through
from fastapi_cacheinval.engine.process_name import process_name
from fastapi_cacheinval.inspector.plain import Told, plain

__all__ = ["Reads"]

_MOST_HOT = 50
_MOST_FOUND = 50
_LONGEST_SEARCH = 1024
# Real seconds for which one look through what is kept serves everybody who asks.
_LOOK_EVERY = 2.0
# The same for the counts of routes, of which there may be a thousand.
_COUNT_EVERY = 0.9


class Reads:
    """Answers about one cache; nothing of a body, of header fields, or of a partition's value is in them."""

    def __init__(self, cache: HTTPCache) -> None:
        self._cache = cache
        self._core = internals_of(cache)
        self._contents: Contents | None = None
        self._looked = -_LOOK_EVERY
        self._looking = False
        self._routes: Mapping[str, RouteStatistics] = {}
        self._counted = -_COUNT_EVERY

    def pulse(self) -> tuple[object, ...]:
        """What the page is told of at once when it changes."""
        now = self._core.bus.state()
        return now.connected, now.queue_length, self._core.enabled

    def state(self) -> dict[str, Any]:
        """What the replica does and how it stands to the log."""
        now = self._core.statistics()
        state: dict[str, Any] = plain(now)
        del state["routes"]
        settings = self._core.settings
        return {
            **state,
            "saved_seconds": sum(each.saved_seconds for each in self._by_route().values()),
            "at": time(),
            # Only without replicas a lease never ends.
            "alone": isinf(now.lease_remaining),
            "namespace": settings.namespace,
            "replica": process_name(),
            "staleness_bound": settings.staleness_bound,
        }

    def _by_route(self) -> Mapping[str, RouteStatistics]:
        """The counts of routes, at most a second old."""
        if monotonic() - self._counted >= _COUNT_EVERY:
            self._routes, self._counted = self._cache.statistics().routes, monotonic()
        return self._routes

    async def show_state(self, request: Request) -> Response:
        """`GET api/state`."""
        return Told(self.state())

    async def show_contents(self, request: Request) -> Response:
        """`GET api/contents`: the pages and tags that are used most in this process."""
        if monotonic() - self._looked >= _LOOK_EVERY and not (self._looking and self._contents):
            self._looking = True
            try:
                self._contents = await look_through(self._core.engine, _MOST_HOT)
            finally:
                self._looking = False
            self._looked = monotonic()
        return Told(plain(self._contents))

    async def show_routes(self, request: Request) -> Response:
        """`GET api/routes?sort=hits&q=&offset=0&limit=25`: one page of the routes, the largest first."""
        sort, text = request.query_params.get("sort", "requests"), request.query_params.get("q", "")
        if sort not in _SORTS:
            return Told({"error": f"sort is one of {', '.join(_SORTS)}."}, 400)
        offset, limit = _number(request, "offset", 0, 1_000_000), _number(request, "limit", 25, 100)
        routes = self._by_route()
        found = [(name, each) for name, each in routes.items() if text in name]
        rows = nlargest(offset + limit, found, key=lambda item: getattr(item[1], sort))[offset:]
        shown = [{"route": name, "requests": each.requests, **plain(each)} for name, each in rows]
        return Told({"routes": shown, "matching": len(found), "all": len(routes), "offset": offset})

    async def search(self, request: Request) -> Response:
        """`GET api/search?q=`: pages and tags of this process that contain a text."""
        text = request.query_params.get("q", "")
        if not 0 < len(text) <= _LONGEST_SEARCH:
            return Told({"error": f"q is a text of 1 to {_LONGEST_SEARCH} characters."}, 400)
        return Told(plain(await find(self._core.engine, text, _MOST_FOUND)))


_SORTS = ("requests", "hits", "misses", "stale", "saved_seconds", "size_bytes", "responses", "errors")


def _number(request: Request, name: str, default: int, most: int) -> int:
    """A number of the query within its bounds; the default for what is none."""
    text = request.query_params.get(name, "")
    return min(int(text), most) if text.isdecimal() and len(text) < 10 else default
