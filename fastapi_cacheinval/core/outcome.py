"""How one request was answered: `Cache-Status` is written from it, and telemetry receives the same value."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from fastapi_cacheinval.grammar.cache_status import CacheStatus, serialise_cache_status

__all__ = ["Outcome", "Reason", "Result", "cache_status"]


class Result(StrEnum):
    """The kind of answer to a cacheable request."""

    HIT = "hit"
    STALE = "stale"
    MISS = "miss"
    COLLAPSED = "collapsed"
    BYPASS = "bypass"


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


class Outcome(NamedTuple):
    """The answer to one cacheable request.

    `ttl` is the remaining freshness in whole seconds, negative when stale; `age` the response's age
    in seconds. `reason` says why the request went forward, `fwd_status` what came back where that is
    not what was sent, `detail` what stood in the way of storing, `overdue` for how many seconds the response has been
    stale.
    """

    result: Result
    tier: str | None = None
    reason: Reason | None = None
    age: float | None = None
    ttl: int | None = None
    fwd_status: int | None = None
    stored: bool = False
    detail: str | None = None
    overdue: float = 0.0


def cache_status(outcome: Outcome) -> bytes:
    """The `Cache-Status` member for an outcome (RFC 9211)."""
    hit = outcome.reason is None and outcome.result in (Result.HIT, Result.STALE)
    if hit and outcome.ttl is not None and outcome.detail is None:
        # What the general form gives for nearly every answer, here and below, at a tenth of its cost.
        return b"cacheinval; hit; ttl=%d" % outcome.ttl
    plain = outcome.stored and outcome.fwd_status is None and outcome.detail is None and outcome.ttl is not None
    if plain and outcome.result is Result.MISS and outcome.reason is not None:
        return b"cacheinval; fwd=%b; ttl=%d; stored" % (outcome.reason.value.encode(), outcome.ttl or 0)
    return serialise_cache_status(
        CacheStatus(
            hit=hit,
            fwd=None if outcome.reason is None else outcome.reason.value,
            fwd_status=outcome.fwd_status,
            ttl=outcome.ttl,
            stored=outcome.stored,
            collapsed=outcome.result is Result.COLLAPSED,
            detail=outcome.detail,
        )
    )
