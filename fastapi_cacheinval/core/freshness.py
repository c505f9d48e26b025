"""How long a response is fresh (RFC 9111 section 4.2) and when it is refreshed before that ends."""

from __future__ import annotations

from math import log

__all__ = ["early_refresh_due", "early_refresh_from", "jittered", "whole_seconds"]

# The largest -ln(u) that a draw u from (0, 1] with 53 random bits can give.
_LARGEST_DRAW = 53 * log(2)


def jittered(ttl: float, jitter: float, draw: float) -> float:
    """The freshness lifetime: `ttl` times a value from [1 - jitter, 1], so that it is only ever shortened.

    `draw` is uniform in [0, 1).
    """
    return ttl * (1.0 - jitter * draw)


def early_refresh_due(now: float, fresh_until: float, fill_seconds: float, beta: float, draw: float) -> bool:
    """XFetch (Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache Stampede Prevention, 2015).

    True where a fresh response should be refreshed now, the likelier the nearer its end and the
    dearer its fill. `draw` is uniform in [0, 1); `beta` 0 switches it off.
    """
    return beta > 0 and now - fill_seconds * beta * log(1.0 - draw) >= fresh_until


def early_refresh_from(fresh_until: float, fill_seconds: float, beta: float) -> float:
    """The moment before which no draw can make an early refresh due."""
    return fresh_until - fill_seconds * beta * _LARGEST_DRAW


def whole_seconds(left: float) -> int:
    """What is left of a response's freshness, in whole seconds; -1 or less where nothing is left."""
    return int(left) if left > 0 else min(-1, int(left))
