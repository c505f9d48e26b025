"""The kinds of answers to a cacheable request."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Result"]


class Result(StrEnum):
    """The kind of answer."""

    HIT = "hit"
    STALE = "stale"
    MISS = "miss"
    COLLAPSED = "collapsed"
    BYPASS = "bypass"
