"""The one decision of a lookup: what is served, and whether the request goes on to the app."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from fastapi_cacheinval.core.freshness import early_refresh_due
from fastapi_cacheinval.core.stored import StoredResponse

__all__ = ["Bypass", "Decision", "Forward", "Reason", "Serve", "ServeStale", "decide", "usable_on_error"]


class Reason(StrEnum):
    """Why a request goes forward (RFC 9211 section 2.2)."""

    BYPASS = "bypass"
    METHOD = "method"
    URI_MISS = "uri-miss"
    VARY_MISS = "vary-miss"
    MISS = "miss"
    REQUEST = "request"
    STALE = "stale"
    PARTIAL = "partial"


class Serve(NamedTuple):
    """The stored response is fresh; `refresh` asks for an early one in the background."""

    stored: StoredResponse
    refresh: bool


class ServeStale(NamedTuple):
    """The stored response may be served stale while one refresh runs (RFC 5861)."""

    stored: StoredResponse


class Forward(NamedTuple):
    """The request goes on to the app."""

    reason: Reason


class Bypass(NamedTuple):
    """The request is none of the cache's business; `detail` says why."""

    detail: str


Decision = Serve | ServeStale | Forward | Bypass

_URI_MISS = Forward(Reason.URI_MISS)
_STALE = Forward(Reason.STALE)


def decide(stored: StoredResponse | None, stale_from: float | None, now: float, draw: float) -> Decision:
    """Decide for a lookup's result (RFC 9111 section 4).

    `stale_from` is the replica's word: None where the response may not be used at all, else from
    when on a soft purge makes it stale. `draw` is uniform in [0, 1).
    """
    if stored is None or stale_from is None:
        return _URI_MISS
    fresh_until = min(stored.fresh_until, stale_from)
    if now < fresh_until:
        due = now >= stored.early_refresh_from and early_refresh_due(
            now, fresh_until, stored.fill_seconds, stored.early_refresh, draw
        )
        return Serve(stored, refresh=due)
    if not stored.must_revalidate and now < fresh_until + stored.stale_while_revalidate:
        return ServeStale(stored)
    return _STALE


def usable_on_error(stored: StoredResponse, stale_from: float | None, now: float) -> bool:
    """Whether a response may stand in for a forward that failed (RFC 5861 section 4)."""
    if stale_from is None:
        return False
    fresh_until = min(stored.fresh_until, stale_from)
    return now < fresh_until or (not stored.must_revalidate and now < fresh_until + stored.stale_if_error)
