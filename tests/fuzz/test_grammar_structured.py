"""RFC 9651: what structured fields say, by their own examples and their own limits."""

from __future__ import annotations

from typing import Any

import pytest

from fastapi_cacheinval.grammar.structured import (
    Date,
    Decimal,
    DisplayString,
    InnerList,
    Item,
    Token,
    parse_dictionary,
    parse_list,
    serialise_dictionary,
    serialise_list,
)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"42", 42),
        (b"-42", -42),
        (b"007", 7),
        (b"999999999999999", 999_999_999_999_999),
        (b"4.5", Decimal(4_500)),
        (b"-0.125", Decimal(-125)),
        (b'"hello \\"you\\" \\\\"', 'hello "you" \\'),
        (b'""', ""),
        (b"foo123/456", Token("foo123/456")),
        (b"*a:b", Token("*a:b")),
        (b":cHJldGVuZA==:", b"pretend"),
        (b":cHJldGVuZA:", b"pretend"),
        (b"?1", True),
        (b"?0", False),
        (b"@1659578233", Date(1_659_578_233)),
        (b'%"f%c3%bcr"', DisplayString("für")),
    ],
)
def test_3_3_bare_items(raw: bytes, value: Any) -> None:
    """Each kind of item is read as its own type."""
    members: Any = parse_list([raw])
    assert members == (Item(value, {}),)
    assert type(members[0].value) is type(value)


@pytest.mark.parametrize(
    "raw",
    [
        b"1000000000000000", b"1.", b"1.2345", b"1234567890123.1", b"--1", b"'a'", b'"a', b'"\\a"', b'"\xff"', b"?2",
        b":a", b":a!:", b"@1.5", b"@", b'%"\xc3"', b'%"%C3%BC"', b'%"%ff"', b"(a", b"(a b", b"(a,b)", b"a b", b"a,",
        b",a", b"a,,b", b"a;=1", b"a;B", b"\x00", b"a\xff", b"&",
    ],
)  # fmt: skip
def test_4_2_what_is_malformed_is_nothing_at_all(raw: bytes) -> None:
    """A field fails whole: there is no half of it."""
    assert parse_list([raw]) is None


def test_3_1_lists_of_lists() -> None:
    """Inner lists, parameters on items and on lists, several lines."""
    members: Any = parse_list([b'("a";x=1 b);q', b"c;y"])
    assert members == (
        InnerList((Item("a", {"x": 1}), Item(Token("b"), {})), {"q": True}),
        Item(Token("c"), {"y": True}),
    )
    assert serialise_list(members) == b'("a";x=1 b);q, c;y'


def test_3_2_dictionaries() -> None:
    """A key alone is true, of a repeated key the last holds in the last place."""
    members = parse_dictionary([b"a=1, b;x=2, a=?0", b'c=("d")'])
    assert members is not None
    assert list(members) == ["b", "a", "c"]
    assert members["b"] == Item(value=True, parameters={"x": 2})
    assert serialise_dictionary(members) == b'b;x=2, a=?0, c=("d")'
    assert parse_dictionary([b""]) == {}
    assert parse_dictionary([b"A=1"]) is None
    assert parse_dictionary([b"a =1"]) is None
    assert parse_dictionary([b"a= 1"]) is None
