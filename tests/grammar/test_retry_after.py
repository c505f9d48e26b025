"""Retry-After: RFC 9110 §10.2.3."""

from __future__ import annotations

import pytest

from fastapi_cacheinval.grammar.dates import format_date
from fastapi_cacheinval.grammar.retry_after import parse_retry_after

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ([], None),
        ([b"0"], 0),
        ([b"120"], 120),
        ([b" 0120 "], 120),
        ([b"120", b"5"], 120),
        ([b"9" * 5_000], 2**31),
        ([format_date(NOW + 90)], 90),
        ([format_date(NOW - 90)], 0),
        ([b"Fri, 31 Dec 9999 23:59:59 GMT"], 2**31),
        ([b""], None),
        ([b"soon"], None),
        ([b"-1"], None),
        ([b"1.5"], None),
        ([b"1, 2"], None),
        ([b"\xb2"], None),
    ],
)
def test_seconds_or_a_date_and_nothing_else(lines: list[bytes], seconds: float | None) -> None:
    """A date counts from now, a past one is now, and what cannot be read says nothing."""
    assert parse_retry_after(lines, NOW) == seconds
