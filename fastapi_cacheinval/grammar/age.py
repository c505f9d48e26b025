"""Age: how long ago a response was made or validated at its origin, as upstream caches say (RFC 9111 §5.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fastapi_cacheinval.grammar.cache_control import MAX_SECONDS
from fastapi_cacheinval.grammar.fields import OWS

__all__ = ["parse_age", "serialise_age"]

# More digits than 2**31 has: int() of very long text is slow and then raises.
_MOST_DIGITS: Final = 10


def parse_age(values: Sequence[bytes]) -> int:
    """Whole seconds from 0 to 2**31 by all lines of the field; never raises.

    The first member of the first line counts, and the others do not. A field whose first member is no
    non-negative integer is ignored, as RFC 9111 section 5.1 asks: the result is then 0, as for no field.
    """
    members = (member for value in values for piece in value.split(b",") if (member := piece.strip(OWS)))
    digits = next(members, b"")
    # bytes.isdigit() knows the ten ASCII digits alone.
    if not digits.isdigit():
        return 0
    significant = digits.lstrip(b"0")
    return MAX_SECONDS if len(significant) > _MOST_DIGITS else min(int(significant or b"0"), MAX_SECONDS)


def serialise_age(seconds: float) -> bytes:
    """The field's value: whole seconds, rounded down, from 0 to 2**31."""
    return b"%d" % min(max(int(seconds), 0), MAX_SECONDS)
