"""Which stored response answers, and which is validated first (RFC 9111 sections 4 and 5.2.1, RFC 5861)."""

from __future__ import annotations

from fastapi_cacheinval.core.decide import Forward, Serve, ServeStale
from fastapi_cacheinval.core.outcome import Reason
from fastapi_cacheinval.core.rfc9111.asking import Asked
from fastapi_cacheinval.core.rfc9111.response import SharedResponse

__all__ = ["answers", "outlasts", "stands_in"]

_URI_MISS = Forward(Reason.URI_MISS)
_REQUEST = Forward(Reason.REQUEST)
_STALE = Forward(Reason.STALE)


def answers(
    asked: Asked, stored: SharedResponse | None, stale_from: float | None, now: float
) -> Serve | ServeStale | Forward:
    """What a lookup's result is good for.

    `stale_from` is the replica's word: None where the response may not be used at all, else from when
    on a soft purge makes it stale.
    """
    if stored is None or stale_from is None:
        return _URI_MISS
    wanted = asked.directives
    if wanted.no_cache or (asked.authorized and not stored.for_all):
        return _REQUEST
    fresh_until = min(stored.fresh_until, stale_from)
    age, left = now - stored.created, fresh_until - now
    if wanted.max_age is not None and (age > wanted.max_age or not wanted.max_age):
        return _REQUEST
    if wanted.min_fresh is not None and left < wanted.min_fresh:
        return _REQUEST
    if left > 0:
        return Serve(stored, refresh=False)
    if stored.must_revalidate:
        return _STALE
    if -left < stored.stale_while_revalidate:
        return ServeStale(stored)
    tolerated = wanted.max_stale
    if tolerated is not None and not stored.only_fresh and (tolerated is True or -left <= tolerated):
        return Serve(stored, refresh=False)
    return _STALE


def stands_in(asked: Asked, stored: SharedResponse, stale_from: float | None, now: float) -> bool:
    """Whether a response may stand in for a forward that failed (RFC 5861 section 4).

    It may for as long as the response says, or the request, unless the response forbids stale answers.
    """
    if stale_from is None or (asked.authorized and not stored.for_all):
        return False
    fresh_until = min(stored.fresh_until, stale_from)
    if stored.must_revalidate:
        return now < fresh_until
    window = stored.stale_if_error
    if not stored.only_fresh:
        window = max(window, asked.directives.stale_if_error or 0)
    return now < fresh_until + window


def outlasts(stored: SharedResponse, stale_from: float | None, now: float) -> bool:
    """Whether a response stays in use after a refresh in the background that was answered with an error.

    It does while it is fresh, and for as long as it may be served stale for any reason: an error that callers do not
    have to see takes nothing from them, even if it could be stored.
    """
    if stale_from is None:
        return False
    window = 0.0 if stored.must_revalidate else max(stored.stale_while_revalidate, stored.stale_if_error)
    return now < min(stored.fresh_until, stale_from) + window
