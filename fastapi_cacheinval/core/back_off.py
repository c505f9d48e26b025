"""When a stored response is refreshed again after a refresh that could not renew it (RFC 9110 section 10.2.3)."""

from __future__ import annotations

from typing import NamedTuple

from fastapi_cacheinval.core.stored import StoredResponse

__all__ = ["COULD_NOT_RENEW", "LONGEST_PAUSE", "LONGEST_RETRY_AFTER", "BackOff", "backed_off", "may_try"]

COULD_NOT_RENEW = frozenset({"failed", "refused", "timeout"})
"""The outcomes of a refresh that leave the stale response in use: an error, an answer that may not be stored, none."""

LONGEST_PAUSE = 60.0
"""The longest pause in seconds without a `Retry-After`; the first is one second, and each is twice the last."""

LONGEST_RETRY_AFTER = 3600.0
"""The longest `Retry-After` in seconds that is obeyed."""

_FIRST_PAUSE = 1.0
_MOST_DOUBLINGS = 10
# Seconds by which two readings of one stored response's times may differ.
_SAME = 0.005


class BackOff(NamedTuple):
    """How often the refresh of one response failed in a row, and until when there is none.

    Times are seconds of the cache's clock. `created` and `fresh_until` are those of the response: a newer one, by
    whatever way it came, begins anew.
    """

    failures: int
    until: float
    created: float
    fresh_until: float

    def concerns(self, stored: StoredResponse) -> bool:
        """Whether it was this response, or an older one, that could not be renewed."""
        return stored.created <= self.created + _SAME and stored.fresh_until <= self.fresh_until + _SAME


def may_try(back_off: BackOff | None, stored: StoredResponse, now: float) -> bool:
    """Whether a refresh of a response may begin."""
    return back_off is None or now >= back_off.until or not back_off.concerns(stored)


def backed_off(before: BackOff | None, stored: StoredResponse, now: float, retry_after: float | None) -> BackOff:
    """What holds after one more refresh that could not renew; `retry_after` is in seconds, None where nothing was said.

    The pause doubles with each failure in a row, and is never shorter than the app asks, within the bounds above.
    """
    failures = before.failures + 1 if before is not None and before.concerns(stored) else 1
    pause = min(LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(failures - 1, _MOST_DOUBLINGS))
    pause = max(pause, min(retry_after or 0.0, LONGEST_RETRY_AFTER))
    return BackOff(failures, now + pause, stored.created, stored.fresh_until)
