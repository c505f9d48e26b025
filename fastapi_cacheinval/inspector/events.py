"""What happens in a cache, as the page lists it: short, whatever its size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi_cacheinval.cache import HTTPCache
from fastapi_cacheinval.core.events import ConnectionEvent, Decision, Event, PurgeEvent, Receipt
from fastapi_cacheinval.core.words import cut
from fastapi_cacheinval.inspector.feed import Listening

__all__ = ["event_told", "listening_to", "purge_told"]

_MOST_NAMED = 20
_LONGEST_NAME = 300


def listening_to(cache: HTTPCache) -> Listening:
    """Has a function told of what happens in a cache, until what it gives is called."""

    def begin(tell: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
        return cache.subscribe(lambda event: tell(event_told(event)))

    return begin


def event_told(event: Event) -> dict[str, Any]:
    """An event of the feed."""
    match event:
        case Decision():
            return {
                "kind": event.result,
                "at": event.time,
                "method": event.method,
                "path": _cut(event.path),
                "route": _cut(event.route),
                "status": event.cache_status,
                "detail": event.detail,
                "tier": event.tier,
                "key": event.key,
                "tags": [_cut(tag) for tag in event.tags[:_MOST_NAMED]],
                "more": max(0, len(event.tags) - _MOST_NAMED),
                "seconds": event.seconds,
            }
        case PurgeEvent():
            told = {"kind": "purge", "at": event.time, "own": event.own, "by": _cut(event.by), "trace": event.trace}
            return {**told, **purge_told(event), "delay": event.delay}
        case ConnectionEvent():
            return {"kind": "outage", "at": event.time, "connected": event.connected, "cause": _cut(event.cause)}
        case _:
            return {"kind": "reset", "at": event.time, "term": event.term, "cause": event.cause}


def purge_told(purge: PurgeEvent | Receipt) -> dict[str, Any]:
    """A purge: its number, its first tags and paths, and how many more there are."""
    return {
        "term": purge.term,
        "seq": purge.seq,
        "soft": purge.soft,
        "everything": purge.everything,
        "tags": [_cut(tag) for tag in purge.tags[:_MOST_NAMED]],
        "paths": [_cut(path) for path in purge.paths[:_MOST_NAMED]],
        "more": max(0, len(purge.tags) - _MOST_NAMED) + max(0, len(purge.paths) - _MOST_NAMED),
    }


def _cut(text: str) -> str:
    return cut(text, _LONGEST_NAME)
