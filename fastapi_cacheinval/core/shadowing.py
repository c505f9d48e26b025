"""How sure one may be that what is stored is what the app would answer: comparisons, counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import floor, sqrt

__all__ = ["ShadowStatistics", "equal_at_least"]

# One-sided, for 95 %.
_Z = 1.6449
_ALPHA = 0.05


def equal_at_least(compared: int, different: int) -> float:
    """The share of hits that is equal at the least, from 0 to 1, of which one may be 95 % sure.

    Without any difference it is the exact bound, which the rule of three comes close to; with some it is the lower
    bound of Wilson's interval (1927).
    """
    if compared <= 0:
        return 0.0
    if different <= 0:
        return float(_ALPHA ** (1 / compared))
    n, share = compared, 1 - different / compared
    middle = share + _Z * _Z / (2 * n)
    margin = _Z * sqrt(share * (1 - share) / n + _Z * _Z / (4 * n * n))
    return max(0.0, (middle - margin) / (1 + _Z * _Z / n))


def _percent(share: float) -> str:
    """Never more than it is: two places, and more where they are all nines."""
    percent = 100 * share
    places = 2
    while places < 6 and percent >= 100 - 10 ** -(places + 1):
        places += 1
    return f"{floor(percent * 10**places) / 10**places:.{places}f}"


@dataclass(frozen=True, slots=True)
class ShadowStatistics:
    """What came of making hits again, since the cache was made.

    `share` is that of hits that are made again. `compared` answers were compared with what is stored, `different` of
    them were another: `different_by_route` says of which routes, by label. `failed` were not answered by the app, or
    not in time; `skipped` were of no use, because a purge came meanwhile or too many were under way.
    """

    share: float = 0.0
    compared: int = 0
    different: int = 0
    failed: int = 0
    skipped: int = 0
    different_by_route: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def equal_at_least(self) -> float:
        """The share of hits that is equal at the least, from 0 to 1, of which one may be 95 % sure."""
        return equal_at_least(self.compared, self.different)

    def __str__(self) -> str:
        if not self.compared:
            return "nothing compared"
        return f"{_percent(self.equal_at_least)} % equal, 95 % sure, {self.compared:,} compared"
