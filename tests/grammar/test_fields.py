"""Header fields as pairs of bytes: RFC 9110 §5.2, §5.6 and §7.6.1."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_cacheinval.grammar.fields import (
    combined,
    end_to_end,
    first,
    is_token,
    split_list,
    split_parameters,
    unquote,
    values,
    without,
)

HEADERS = [
    (b"set-cookie", b"a=1"),
    (b"vary", b"accept"),
    (b"set-cookie", b"b=2"),
    (b"vary", b""),
]


def test_every_line_of_a_field_is_kept_in_order() -> None:
    """Two Set-Cookie lines are two values."""
    assert values(HEADERS, b"set-cookie") == [b"a=1", b"b=2"]
    assert values(HEADERS, b"etag") == []


def test_first_tells_an_absent_field_from_an_empty_one() -> None:
    """The first line's value is returned even when it is empty; None means no line."""
    assert first(HEADERS, b"set-cookie") == b"a=1"
    assert first([(b"vary", b"")], b"vary") == b""
    assert first(HEADERS, b"etag") is None


def test_combined_joins_the_lines_of_a_field() -> None:
    """RFC 9110 §5.2: lines of one field are joined by a comma and a space."""
    assert combined(HEADERS, b"vary") == b"accept, "
    assert combined(HEADERS, b"set-cookie") == b"a=1, b=2"
    assert combined(HEADERS, b"etag") is None


def test_without_keeps_order_and_duplicates_of_the_rest() -> None:
    """Dropping one field leaves every line of the others where it was."""
    assert without(HEADERS, {b"vary"}) == [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]


def test_end_to_end_drops_hop_by_hop_fields_and_those_that_connection_names() -> None:
    """RFC 9110 §7.6.1: what Connection names, in any case and on any line, is for one hop."""
    headers = [
        (b"connection", b"close, X-Hop"),
        (b"x-hop", b"1"),
        (b"connection", b'"quoted", x-other'),
        (b"x-other", b"2"),
        (b"keep-alive", b"timeout=5"),
        (b"transfer-encoding", b"chunked"),
        (b"proxy-authenticate", b"Basic"),
        (b"set-cookie", b"a=1"),
        (b"etag", b'"x"'),
        (b"set-cookie", b"b=2"),
    ]
    assert end_to_end(headers) == [
        (b"set-cookie", b"a=1"),
        (b"etag", b'"x"'),
        (b"set-cookie", b"b=2"),
    ]
    assert end_to_end(headers[6:]) == end_to_end(headers)


@pytest.mark.parametrize(
    ("value", "members"),
    [
        (b"", []),
        (b" , ,\t,", []),
        (b"a", [b"a"]),
        (b" a ,\tb\t, ,c", [b"a", b"b", b"c"]),
        (b'x="a, b", c', [b'x="a, b"', b"c"]),
        (b'x="a\\", b", c', [b'x="a\\", b"', b"c"]),
        (b'"a""b,c",d', [b'"a""b,c"', b"d"]),
        (b'a, x="b, c', [b"a", b'x="b', b"c"]),
        (b'a, x="b\\", c', [b"a", b'x="b\\"', b"c"]),
        (b'a, x="b\\', [b"a", b'x="b\\']),
        (b"a\x0b,\xa0b", [b"a\x0b", b"\xa0b"]),
    ],
)
def test_a_list_is_split_at_unquoted_commas(value: bytes, members: list[bytes]) -> None:
    """RFC 9110 §5.6.1: quoted commas do not separate, empty members do not count."""
    assert split_list(value) == members


def test_parameters_are_split_at_unquoted_semicolons() -> None:
    """RFC 9110 §5.6.6: a semicolon inside a quoted string does not separate."""
    assert split_parameters(b'a; b="c;d" ;; e, f') == [b"a", b'b="c;d"', b"e, f"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b'""', b""),
        (b'"a b"', b"a b"),
        (b'"a\\"b\\\\"', b'a"b\\'),
        (b"", None),
        (b'"', None),
        (b"a", None),
        (b'"a', None),
        (b'"a\\"', None),
        (b'"a"b', None),
        (b'"a""b"', None),
    ],
)
def test_a_quoted_string_is_unquoted_only_when_it_is_exactly_one(value: bytes, text: bytes | None) -> None:
    """RFC 9110 §5.6.4: a backslash quotes the next octet, and the last octet closes the string."""
    assert unquote(value) == text


@pytest.mark.parametrize(
    ("value", "token"),
    [(b"max-age", True), (b"*", True), (b"", False), (b"a b", False), (b"a\xff", False)],
)
def test_a_token_has_token_characters_only(value: bytes, token: bool) -> None:
    """RFC 9110 §5.6.2: at least one character, none of them a separator or outside ASCII."""
    assert is_token(value) is token


@given(st.lists(st.from_regex(rb'[a-z]{1,4}(="([a-z,\t]|\\[",])*")?', fullmatch=True)))
@settings(max_examples=100)
def test_splitting_undoes_joining(members: list[bytes]) -> None:
    """Any list of well-formed members comes back from its joined form."""
    assert split_list(b" ,".join(members)) == members


@given(st.lists(st.sampled_from([b'"', b"\\", b",", b"a", b" "])).map(b"".join))
@settings(max_examples=200)
def test_splitting_loses_nothing_but_commas_and_white_space(value: bytes) -> None:
    """Whatever the quotes, every other octet is in some member, in order."""
    kept = b"".join(split_list(value))
    assert kept.translate(None, b", ") == value.translate(None, b", ")


@given(st.binary(max_size=60))
@settings(max_examples=200)
def test_unquoting_undoes_quoting(text: bytes) -> None:
    """Any octets survive being written as a quoted string."""
    quoted = b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
    assert unquote(quoted) == text
    assert split_list(b"a," + quoted) == [b"a", quoted]
