"""HTTP dates (RFC 9110 §5.6.7), as seconds since 1970-01-01T00:00:00Z."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["format_date", "parse_date"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_SECOND: Final = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(seconds=1)
_LAST_SECOND: Final = (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - _EPOCH) // timedelta(seconds=1)
_LONGEST: Final = len(b"Wednesday, 31-Dec-99 23:59:60 GMT")

_DAYS: Final = (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")
_MONTHS: Final = tuple(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split())
_MONTH_NUMBERS: Final = {name.lower(): number for number, name in enumerate(_MONTHS, 1)}

_DAY: Final = rb"(?:mon|tue|wed|thu|fri|sat|sun)"
_LONG_DAY: Final = rb"(?:mon|tues|wednes|thurs|fri|satur|sun)day"
_MONTH: Final = rb"([a-z]{3})"
_TIME: Final = rb"([0-9]{2}):([0-9]{2}):([0-9]{2})"
_IMF_FIXDATE: Final = re.compile(_DAY + rb", ([0-9]{2}) " + _MONTH + rb" ([0-9]{4}) " + _TIME + rb" gmt")
_RFC_850: Final = re.compile(_LONG_DAY + rb", ([0-9]{2})-" + _MONTH + rb"-([0-9]{2}) " + _TIME + rb" gmt")
_ASCTIME: Final = re.compile(_DAY + rb" " + _MONTH + rb" ([ 0-9][0-9]) " + _TIME + rb" ([0-9]{4})")


def parse_date(value: bytes, now: float) -> float | None:
    """The time in seconds that an HTTP date names, or None for anything else; never raises.

    All three forms of RFC 9110 §5.6.7, without regard to case (RFC 9111 §4.2). `now`, in the same
    seconds, decides the century of a two-digit year: the last one that is at most 50 years ahead.
    The name of the day is not checked against the date.
    """
    text = value.strip(b" \t").lower()
    if len(text) > _LONGEST:
        return None
    if match := _IMF_FIXDATE.fullmatch(text):
        day, month, year, *time = match.groups()
        return _seconds(int(year), month, day, time)
    if match := _ASCTIME.fullmatch(text):
        month, day, *time, year = match.groups()
        return _seconds(int(year), month, day, time)
    if match := _RFC_850.fullmatch(text):
        day, month, year, *time = match.groups()
        return _two_digit_year(int(year), month, day, time, now)
    return None


def format_date(seconds: float) -> bytes:
    """The IMF-fixdate of a time, rounded down to the second, kept within the years 1 to 9999."""
    date = _date(seconds)
    return b"%b, %02d %b %04d %02d:%02d:%02d GMT" % (
        _DAYS[date.weekday()],
        date.day,
        _MONTHS[date.month - 1],
        date.year,
        date.hour,
        date.minute,
        date.second,
    )


def _date(seconds: float) -> datetime:
    whole = min(max(seconds, _FIRST_SECOND), _LAST_SECOND) // 1
    return _EPOCH + timedelta(seconds=whole)


def _seconds(year: int, month: bytes, day: bytes, time: list[bytes]) -> float | None:
    hour, minute, second = map(int, time)
    leap = second == 60
    try:
        date = datetime(year, _MONTH_NUMBERS.get(month, 0), int(day), hour, minute, second - leap, tzinfo=UTC)
    except ValueError:
        return None
    return float((date - _EPOCH) // timedelta(seconds=1) + leap)


def _two_digit_year(digits: int, month: bytes, day: bytes, time: list[bytes], now: float) -> float | None:
    today = _date(now)
    latest = today.year + 50
    year = latest - (latest - digits) % 100
    if year == latest:
        named = (_MONTH_NUMBERS.get(month, 0), int(day), *map(int, time))
        if named > (today.month, today.day, today.hour, today.minute, today.second):
            year -= 100
    return _seconds(year, month, day, time)
