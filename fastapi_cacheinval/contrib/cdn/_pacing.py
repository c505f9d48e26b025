"""How fast a CDN may be asked, and how long to wait after it would not: arithmetic over times that are given."""

from __future__ import annotations

from fastapi_cacheinval.contrib.cdn.requests import Rate

__all__ = ["Backoff", "Bucket"]

# Seconds: after the first failure, at the longest, and the same where somebody has to mend a configuration.
_FIRST, _LONGEST = 0.5, 30.0
_FIRST_SLOW, _LONGEST_SLOW = 5.0, 60.0
# Whatever a CDN says, it is asked again after an hour.
_MOST_PATIENCE = 3_600.0


class Bucket:
    """A token bucket that is full at first."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._tokens = float(rate.burst)
        self._at: float | None = None

    def take(self, now: float) -> float:
        """Take a token, or say in how many seconds there is one; 0 where it was taken."""
        if self._at is not None:
            filled = self._tokens + max(0.0, now - self._at) * self._rate.per_second
            self._tokens = min(float(self._rate.burst), filled)
        self._at = now
        # As good as one: time that is added up in pieces falls short of the whole by rounding.
        if self._tokens >= 1.0 - 1e-6:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._rate.per_second


class Backoff:
    """The pause after each failure in a row: it doubles, with jitter, and ends with `well`."""

    def __init__(self) -> None:
        self._failures = 0

    def well(self) -> None:
        """Begin anew."""
        self._failures = 0

    def pause(self, *, after: float | None, slow: bool, chance: float) -> float:
        """Seconds until the next attempt, at least `after` up to an hour; `chance` is a draw from [0, 1)."""
        first, longest = (_FIRST_SLOW, _LONGEST_SLOW) if slow else (_FIRST, _LONGEST)
        pause = min(first * 2.0 ** min(self._failures, 16), longest) * (1.0 - chance / 2)
        self._failures += 1
        if after is None or not after > 0:
            return pause
        # A little later each time, so that replicas that were all told the same do not come all at once.
        return min(after, _MOST_PATIENCE) * (1.0 + chance / 10)
