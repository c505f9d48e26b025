"""Age: how long ago a response was made or validated at its origin, as upstream caches say (RFC 9111 §5.1)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final

from fastapi_cacheinval.grammar.cache_control import MAX_SECONDS
from fastapi_cacheinval.grammar.fields import OWS

__all__ = ["UNKNOWN", "UnknownAge", "parse_age", "serialise_age"]


class UnknownAge(Enum):
    """An `Age` that is no number: some cache kept the response, nobody knows for how long."""

    UNKNOWN = "unknown"


UNKNOWN: Final = UnknownAge.UNKNOWN


def parse_age(values: Sequence[bytes]) -> int | UnknownAge:
    """Whole seconds from 0 to 2**31 by all lines of the field, 0 for no line; never raises.

    Of several members the first holds. What is not a non-negative integer is `UNKNOWN`, which callers
    take for stale: RFC 9111 lets it be ignored, and then a response of any age would count as new.
    """
    if not values:
        return 0
    digits = values[0].partition(b",")[0].strip(OWS)
    if not digits or not digits.isdigit():
        return UNKNOWN
    significant = digits.lstrip(b"0")
    return MAX_SECONDS if len(significant) > 10 else min(int(significant or b"0"), MAX_SECONDS)


def serialise_age(seconds: float) -> bytes:
    """The field's value: whole seconds, rounded down, from 0 to 2**31."""
    return b"%d" % min(max(int(seconds), 0), MAX_SECONDS)
