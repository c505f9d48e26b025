"""Retry-After: how long to wait, as seconds or as a date (RFC 9110 §10.2.3)."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi_cacheinval.grammar.cache_control import MAX_SECONDS
from fastapi_cacheinval.grammar.dates import parse_date
from fastapi_cacheinval.grammar.fields import OWS

__all__ = ["parse_retry_after"]

# More digits than 2**31 has: int() of very long text is slow and then raises.
_MOST_DIGITS = 10


def parse_retry_after(values: Sequence[bytes], now: float) -> float | None:
    """Seconds from 0 to 2**31 by the first line of the field; None for no line and for what cannot be read.

    `now` is seconds since the epoch: a date that is past is 0. Never raises.
    """
    if not values:
        return None
    text = values[0].strip(OWS)
    if text.isdigit():
        digits = text.lstrip(b"0")
        return float(MAX_SECONDS if len(digits) > _MOST_DIGITS else min(int(digits or b"0"), MAX_SECONDS))
    moment = parse_date(text, now)
    return None if moment is None else min(max(0.0, moment - now), float(MAX_SECONDS))
