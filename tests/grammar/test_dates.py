"""HTTP dates: RFC 9110 §5.6.7."""

from __future__ import annotations

from datetime import UTC, datetime
from math import floor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_cacheinval.grammar.dates import format_date, parse_date


def at(year: int, month: int, day: int, time: str = "00:00:00") -> float:
    """The time in seconds of a UTC date."""
    return datetime.fromisoformat(f"{year:04}-{month:02}-{day:02}T{time}+00:00").timestamp()


NOW = at(2026, 6, 15, "12:00:00")
EXAMPLE = at(1994, 11, 6, "08:49:37")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"Sun, 06 Nov 1994 08:49:37 GMT", EXAMPLE),
        (b"Sunday, 06-Nov-94 08:49:37 GMT", EXAMPLE),
        (b"Sun Nov  6 08:49:37 1994", EXAMPLE),
        (b"Wed Nov 16 08:49:37 1994", at(1994, 11, 16, "08:49:37")),
        (b" \tSun, 06 Nov 1994 08:49:37 GMT ", EXAMPLE),
        (b"SUN, 06 nov 1994 08:49:37 gmt", EXAMPLE),
        (b"Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        (b"Wed, 31 Dec 1969 23:59:59 GMT", -1.0),
        (b"Sat, 31 Dec 2016 23:59:60 GMT", at(2017, 1, 1)),
        (b"Thu, 29 Feb 2024 00:00:00 GMT", at(2024, 2, 29)),
        (b"Fri, 31 Dec 9999 23:59:59 GMT", at(9999, 12, 31, "23:59:59")),
    ],
)
def test_all_three_forms_are_read(value: bytes, expected: float) -> None:
    """IMF-fixdate, RFC 850 and asctime name the same second, whatever their case."""
    assert parse_date(value, NOW) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"0",
        b"-1",
        b"1994",
        b"784111777",
        b"Sun, 06 Nov 1994 08:49:37",
        b"Sun, 06 Nov 1994 08:49:37 UTC",
        b"Sun, 06 Nov 1994 08:49:37 +0000",
        b"Sun, 06 Nov 1994 08:49:37 GMT, x",
        b"Sun, 06 Nov 94 08:49:37 GMT",
        b"Sun 06 Nov 1994 08:49:37 GMT",
        b"Sun, 06  Nov  1994 08:49:37 GMT",
        b"Sun, 06-Nov-1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 08.49.37 GMT",
        b"Sun, 06 Nov 1994 8:49:37 GMT",
        b"Sun, 6 Nov 1994 08:49:37 GMT",
        b"Sun, 31 Nov 1994 08:49:37 GMT",
        b"Sun, 29 Feb 2023 08:49:37 GMT",
        b"Sun, 00 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Foo 1994 08:49:37 GMT",
        b"Sun, 06 Nov 0000 08:49:37 GMT",
        b"Sun, 06 Nov 1994 24:00:00 GMT",
        b"Sun, 06 Nov 1994 08:60:37 GMT",
        b"Sun, 06 Nov 1994 08:49:61 GMT",
        b"Sunday, 06 Nov 1994 08:49:37 GMT",
        b"Sun, 06-Nov-94 08:49:37 GMT",
        b"Someday, 06-Nov-94 08:49:37 GMT",
        b"Sunday, 29-Feb-23 08:49:37 GMT",
        b"Sun Nov 6 08:49:37 1994",
        b"Sun Nov  6 08:49:37 1994 GMT",
        b"Sun, \xb26 Nov 1994 08:49:37 GMT",
        "Sun, ٠٦ Nov 1994 08:49:37 GMT".encode(),
        b"\x00" * 29,
    ],
)
def test_what_is_not_an_http_date_is_none(value: bytes) -> None:
    """Another zone, another spelling, a day that does not exist: no date."""
    assert parse_date(value, NOW) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"Monday, 15-Jun-26 12:00:00 GMT", at(2026, 6, 15, "12:00:00")),
        (b"Monday, 15-Jun-76 12:00:00 GMT", at(2076, 6, 15, "12:00:00")),
        (b"Monday, 15-Jun-76 12:00:01 GMT", at(1976, 6, 15, "12:00:01")),
        (b"Monday, 14-Jul-76 12:00:00 GMT", at(1976, 7, 14, "12:00:00")),
        (b"Monday, 15-Jun-77 12:00:00 GMT", at(1977, 6, 15, "12:00:00")),
        (b"Monday, 15-Jun-99 12:00:00 GMT", at(1999, 6, 15, "12:00:00")),
        (b"Monday, 15-Jun-00 12:00:00 GMT", at(2000, 6, 15, "12:00:00")),
    ],
)
def test_a_two_digit_year_is_at_most_fifty_years_ahead(value: bytes, expected: float) -> None:
    """RFC 9110 §5.6.7: more than 50 years in the future means the past, to the second."""
    assert parse_date(value, NOW) == expected


def test_a_two_digit_year_may_be_in_the_next_century() -> None:
    """Late in a century, a small year is the coming one, not the one 80 years ago."""
    assert parse_date(b"Tuesday, 01-Jan-10 00:00:00 GMT", at(2090, 1, 1)) == at(2110, 1, 1)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (EXAMPLE, b"Sun, 06 Nov 1994 08:49:37 GMT"),
        (EXAMPLE + 0.999, b"Sun, 06 Nov 1994 08:49:37 GMT"),
        (-0.5, b"Wed, 31 Dec 1969 23:59:59 GMT"),
        (float("inf"), b"Fri, 31 Dec 9999 23:59:59 GMT"),
        (float("-inf"), b"Mon, 01 Jan 0001 00:00:00 GMT"),
    ],
)
def test_a_time_is_written_as_an_imf_fixdate(seconds: float, expected: bytes) -> None:
    """Rounded down, four-digit year, GMT, whatever the locale; clamped outside the calendar."""
    assert format_date(seconds) == expected


@given(st.floats(min_value=-62135596800, max_value=253402300799))
@settings(max_examples=200)
def test_what_was_written_is_read_back(seconds: float) -> None:
    """parse∘format is the whole second, over the whole calendar."""
    assert parse_date(format_date(seconds), NOW) == floor(seconds)


@given(st.integers(0, 250_000_000_000), st.integers(-50 * 365 * 86400, 50 * 365 * 86400))
@settings(max_examples=200)
def test_the_rfc_850_form_is_read_back_within_fifty_years(now: int, distance: int) -> None:
    """A date less than 50 years away from now survives the loss of its century."""
    then = datetime.fromtimestamp(max(0, now + distance), UTC)
    names = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    text = f"{names[then.weekday()]}, {then.day:02}-{months[then.month - 1]}-{then.year % 100:02} {then:%H:%M:%S} GMT"
    if then.timestamp() > now - 49 * 365 * 86400:
        assert parse_date(text.encode(), float(now)) == then.timestamp()
