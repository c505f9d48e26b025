"""The one decision of a lookup: what is served, how fresh it is, and whether the request goes on to the app."""

from __future__ import annotations

from math import log
from typing import NamedTuple

from fastapi_cacheinval.core.outcome import Reason
from fastapi_cacheinval.core.stored import StoredResponse

__all__ = [
    "MISSED",
    "Decision",
    "Forward",
    "Serve",
    "ServeStale",
    "decide",
    "early_refresh_due",
    "usable_on_error",
    "whole_seconds",
]


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


Decision = Serve | ServeStale | Forward

MISSED = Forward(Reason.URI_MISS)
"""The decision where nothing is stored that may be used."""

_STALE = Forward(Reason.STALE)


def decide(stored: StoredResponse | None, stale_from: float | None, now: float, draw: float) -> Decision:
    """Decide for a lookup's result (RFC 9111 section 4).

    `stale_from` is the replica's word: None where the response may not be used at all, else from
    when on a soft purge makes it stale. `draw` is uniform in [0, 1).
    """
    if stored is None or stale_from is None:
        return MISSED
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


# -- freshness (RFC 9111 section 4.2) -----------------------------------------------------------


def early_refresh_due(now: float, fresh_until: float, fill_seconds: float, beta: float, draw: float) -> bool:
    """XFetch (Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache Stampede Prevention, 2015).

    True where a fresh response should be refreshed now, the likelier the nearer its end and the
    dearer its fill. `draw` is uniform in [0, 1); `beta` 0 switches it off.
    """
    return beta > 0 and now - fill_seconds * beta * log(1.0 - draw) >= fresh_until


def whole_seconds(left: float) -> int:
    """What is left of a response's freshness, in whole seconds; -1 or less where nothing is left."""
    return int(left) if left > 0 else min(-1, int(left))
