"""Numbers as people read them."""

from __future__ import annotations

import time

from fastapi_cacheinval.core.words import in_unit

__all__ = ["bytes_of", "count", "counted", "duration", "moment", "ratio"]

_KIB = 1024


def count(number: float) -> str:
    """A count with separators; few per second keep a digit."""
    return f"{number:,.1f}" if isinstance(number, float) and number < 100 else f"{number:,.0f}"


def counted(number: int, noun: str) -> str:
    """So many of something, as `1 replica` or `2 replicas`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def bytes_of(size: int) -> str:
    """A size in the largest unit that it fills."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < _KIB or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= _KIB
    raise AssertionError("GiB is the last unit")


def duration(seconds: float | None) -> str:
    """A time in the unit that fits; a dash where it is not known."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    value, unit = in_unit(seconds)
    return f"{value:.1f} {unit}"


def moment(at: float, form: str = "%H:%M:%S") -> str:
    """Seconds since the epoch as this machine's time; a dash where there is no such time, whoever may have said it."""
    try:
        return time.strftime(form, time.localtime(at))
    except (ValueError, OverflowError, OSError):
        return "–"


def ratio(part: int, whole: int) -> str:
    """A share in percent; a dash of nothing."""
    return f"{part / whole:.1%}" if whole else "–"
