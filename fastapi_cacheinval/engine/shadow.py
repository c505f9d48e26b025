"""Which hits are made again to be compared, and what came of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from fastapi_cacheinval.core.shadowing import ShadowStatistics
from fastapi_cacheinval.core.statistics import route_label
from fastapi_cacheinval.core.unchanging import FrozenMapping

__all__ = ["Shadow"]

_MOST_AT_ONCE = 4
_MOST_ROUTES = 1000


class Shadow:
    """Draws hits at random, so many of all; nothing is drawn where `share` is 0. At most four run at once."""

    def __init__(self, share: float, draw: Callable[[], float]) -> None:
        self.share = share
        self.on = share > 0
        self._draw = draw
        self._running = 0
        self._counts: Counter[str] = Counter()
        self._different: Counter[str] = Counter()

    def begins(self) -> bool:
        """Whether a hit is to be made again; if so, `ended` has to be called."""
        if not self.on or self._draw() >= self.share:
            return False
        if self._running >= _MOST_AT_ONCE:
            self._counts["skipped"] += 1
            return False
        self._running += 1
        return True

    def ended(self, outcome: str, route: str | None) -> bool:
        """It ended: `equal`, `different`, `failed` or `skipped`; whether it is the first difference of its route."""
        self._running -= 1
        self._counts[outcome] += 1
        if outcome != "different":
            return False
        label = route_label(route)
        if label not in self._different and len(self._different) >= _MOST_ROUTES:
            label = route_label(None)
        self._different[label] += 1
        return self._different[label] == 1

    def statistics(self) -> ShadowStatistics:
        """A snapshot."""
        counts = self._counts
        return ShadowStatistics(
            share=self.share,
            compared=counts["equal"] + counts["different"],
            different=counts["different"],
            failed=counts["failed"],
            skipped=counts["skipped"],
            different_by_route=FrozenMapping(dict(self._different)),
        )
