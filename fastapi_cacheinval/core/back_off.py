"""When a stored response is refreshed again after a refresh that could not renew it (RFC 9110 section 10.2.3)."""

from __future__ import annotations

from typing import NamedTuple

from fastapi_cacheinval.core.stored import StoredResponse

__all__ = ["COULD_NOT_RENEW", "LONGEST_PAUSE", "LONGEST_RETRY_AFTER", "NOBODY", "BackOff", "backed_off", "may_try"]

COULD_NOT_RENEW = frozenset({"failed", "refused", "timeout"})
"""The outcomes of a refresh that leave the stale response in use: an error, an answer that may not be stored, none."""

LONGEST_PAUSE = 60.0
"""The longest pause in seconds without a `Retry-After`; the first is one second, and each is twice the last."""

LONGEST_RETRY_AFTER = 3600.0
"""The longest `Retry-After` in seconds that is obeyed."""

NOBODY = b""
"""The caller of a refresh that carries nothing of any caller's: what it is answered is meant for all."""

SAME_READING = 0.005
"""Seconds by which two readings of one stored response's times may differ."""

_FIRST_PAUSE = 1.0
_MOST_DOUBLINGS = 10
# Of so many callers it is known how long they are to stay away.
_MOST_CALLERS = 8


class BackOff(NamedTuple):
    """How often the refresh of one response failed in a row, and until when there is none.

    Times are seconds of the cache's clock. `created` and `fresh_until` are those of the response: a newer one, by
    whatever way it came, begins anew. `away` says until when single callers cause no refresh: an app that has told one
    caller to stay away (429 with `Retry-After`) has not spoken to the others.
    """

    failures: int
    until: float
    created: float
    fresh_until: float
    away: tuple[tuple[bytes, float], ...] = ()

    def concerns(self, stored: StoredResponse) -> bool:
        """Whether it was this response, or an older one, that could not be renewed."""
        return stored.created <= self.created + SAME_READING and stored.fresh_until <= self.fresh_until + SAME_READING


def may_try(back_off: BackOff | None, stored: StoredResponse, now: float, caller: bytes) -> bool:
    """Whether a refresh of a response that this caller's request causes may begin; `caller` as in `backed_off`."""
    if back_off is None or not back_off.concerns(stored):
        return True
    return now >= back_off.until and all(now >= until for who, until in back_off.away if who == caller)


def backed_off(
    before: BackOff | None, stored: StoredResponse, now: float, retry_after: float | None, caller: bytes
) -> BackOff:
    """What holds after one more refresh that could not renew; `retry_after` is in seconds, None where nothing was said.

    The pause doubles with each failure in a row. It is never shorter than the app asks, within the bounds above, of
    whom it asks: of all where the refresh was `NOBODY`'s, else of the caller whose request it repeated.
    """
    before = before if before is not None and before.concerns(stored) else None
    failures = 1 if before is None else before.failures + 1
    pause = min(LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(failures - 1, _MOST_DOUBLINGS))
    asked = min(retry_after or 0.0, LONGEST_RETRY_AFTER)
    away = () if before is None else tuple(each for each in before.away if each[1] > now and each[0] != caller)
    if caller == NOBODY:
        pause = max(pause, asked)
    elif asked > pause:
        away = (*away, (caller, now + asked))[-_MOST_CALLERS:]
    return BackOff(failures, now + pause, stored.created, stored.fresh_until, away)
