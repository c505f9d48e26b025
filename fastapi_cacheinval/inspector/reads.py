"""What the page asks for: the state of the cache, what it keeps, and a search."""

from __future__ import annotations

from math import isinf
from time import monotonic, time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from fastapi_cacheinval.cache import HTTPCache, internals_of
from fastapi_cacheinval.engine.contents import Contents, find, look_through
from fastapi_cacheinval.engine.process_name import process_name
from fastapi_cacheinval.engine.settings import Settings
from fastapi_cacheinval.inspector.plain import Told, plain

__all__ = ["Reads"]

_MOST_HOT = 50
_MOST_FOUND = 50
_LONGEST_SEARCH = 1024
# Real seconds for which one look through what is kept serves everybody who asks.
_LOOK_EVERY = 2.0


class Reads:
    """Answers about one cache; nothing of a body, of header fields, or of a partition's value is in them."""

    def __init__(self, cache: HTTPCache) -> None:
        self._core = internals_of(cache)
        self._contents: Contents | None = None
        self._looked = -_LOOK_EVERY
        self._looking = False

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
            "saved_seconds": self._core.counters.routes.saved_seconds,
            "shadow_said": str(now.shadow) if now.shadow.share else None,
            "at": time(),
            # Only without replicas a lease never ends.
            "alone": isinf(now.lease_remaining),
            "namespace": settings.namespace,
            "replica": process_name(),
            "staleness_bound": settings.staleness_bound,
            "while_away": _while_away(settings),
        }

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

    async def search(self, request: Request) -> Response:
        """`GET api/search?q=`: pages and tags of this process that contain a text."""
        text = request.query_params.get("q", "")
        if not 0 < len(text) <= _LONGEST_SEARCH:
            return Told({"error": f"q is a text of 1 to {_LONGEST_SEARCH} characters."}, 400)
        return Told(plain(await find(self._core.engine, text, _MOST_FOUND)))


def _while_away(settings: Settings) -> str:
    """What the page says of purges and of old responses while Redis is away."""
    purges = "Purges are queued and delivered when it is back."
    if settings.mutations_when_disconnected == "refuse":
        purges = "Mutations that purge something are answered 503 until it is back."
    if not settings.stale_when_disconnected:
        return f"{purges} Nothing older than the staleness bound is served."
    longest = settings.staleness_bound + settings.stale_when_disconnected
    return f"{purges} What is stored may be served for up to {longest:g} s more, purged elsewhere or not."
