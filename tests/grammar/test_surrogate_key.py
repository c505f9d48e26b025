"""Surrogate-Key: tags separated by white space."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_cacheinval.grammar.surrogate_key import parse_surrogate_key, serialise_surrogate_key


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([b"", b"  "], []),
        ([b" a  b\tc "], ["a", "b", "c"]),
        ([b"a b", b"a"], ["a", "b", "a"]),
        ([b"a,b"], ["a,b"]),
        ([b"caf\xe9 \xa0x"], ["café", "\xa0x"]),
        ([b"caf\xc3\xa9"], ["caf\xc3\xa9", "café"]),
    ],
)
def test_tags_are_split_at_ascii_white_space(values: list[bytes], expected: list[str]) -> None:
    """Every line counts, order and duplicates are kept, octets are read as Latin-1, and as UTF-8 where they are that."""
    assert parse_surrogate_key(values) == expected


@pytest.mark.parametrize(
    ("tags", "limit", "expected"),
    [
        ([], 8192, None),
        (["a", "bc"], 8192, b"a bc"),
        (["a", "bc"], 4, b"a bc"),
        (["a", "bc"], 3, b"a"),
        (["a", "bc", "d"], 3, b"a"),
        (["abc"], 2, None),
        (["a"], 0, None),
        (["", "a b", "a\nx: y", "a\x00", "€", "\x7f", "ok"], 8192, b"ok"),
    ],
)
def test_only_whole_tags_within_the_limit_are_written(tags: list[str], limit: int, expected: bytes | None) -> None:
    """A tag is never cut, never two, never another line; no tag means no field."""
    assert serialise_surrogate_key(tags, limit) == expected


def test_eight_kibibytes_are_the_default_limit() -> None:
    """A thousand tags are cut at a tag's end below 8,192 bytes."""
    value = serialise_surrogate_key(f"product:{number:06}" for number in range(1_000))
    assert value is not None
    assert 8_192 - 15 <= len(value) <= 8_192
    assert value.endswith(b"product:%06d" % (len(parse_surrogate_key([value])) - 1))


@given(st.lists(st.binary(max_size=30), max_size=4), st.integers(0, 60))
@settings(max_examples=200)
def test_what_was_written_is_read_back_as_a_prefix(values: list[bytes], limit: int) -> None:
    """The tags of a cut field are the first of those that were to be written."""
    tags = parse_surrogate_key(values)
    carriable = [tag for tag in tags if all(ord(c) > 0x20 and ord(c) != 0x7F for c in tag)]
    value = serialise_surrogate_key(tags, limit)
    read = parse_surrogate_key([value or b""])
    assert len(value or b"") <= limit
    assert read == carriable[: len(read)]
    assert parse_surrogate_key([serialise_surrogate_key(tags) or b""]) == carriable
