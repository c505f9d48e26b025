"""RFC 9111 section 5.1: which number an `Age` is, and that one which is no number is no age."""

from __future__ import annotations

import pytest

from fastapi_cacheinval.grammar.age import parse_age


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ([], 0),
        ([b"0"], 0),
        ([b"50"], 50),
        ([b" 50\t"], 50),
        ([b"0050"], 50),
        ([b"50, 7200"], 50),
        ([b"50", b"7200"], 50),
        ([b",50"], 50),
        ([b"", b"50"], 50),
        ([b"2147483648"], 2**31),
        ([b"2147483649"], 2**31),
        ([b"9" * 10_000], 2**31),
        ([b"0" * 10_000 + b"7"], 7),
    ],
)
def test_the_first_member_counts_and_is_at_most_2_to_the_31(lines: list[bytes], seconds: int) -> None:
    """Later members and lines are discarded, leading zeros are nothing, and what is larger counts as 2**31."""
    assert parse_age(lines) == seconds


@pytest.mark.parametrize(
    "value",
    [b"", b"abc", b"-1", b"+1", b"1.5", b"1e3", b"1;a=b", b'"1"', b"1 2", b"0x10", b"1_0", b"\xb2", "٣".encode()],
)
def test_what_is_no_number_is_ignored(value: bytes) -> None:
    """It is as if the field was not there, and a number after it does not count."""
    assert parse_age([value]) == 0
    if value:
        assert parse_age([value + b", 50"]) == parse_age([value, b"50"]) == 0
