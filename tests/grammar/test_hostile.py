"""What a client may send to any parser: it never raises, and its time grows with the length."""

from __future__ import annotations

from collections.abc import Callable
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_cacheinval.grammar import cache_control
from fastapi_cacheinval.grammar.accept_encoding import normalise_accept_encoding
from fastapi_cacheinval.grammar.cache_status import parse_cache_status
from fastapi_cacheinval.grammar.dates import parse_date
from fastapi_cacheinval.grammar.entity_tags import (
    none_match_fails,
    parse_etag,
    parse_if_none_match,
)
from fastapi_cacheinval.grammar.fields import (
    end_to_end,
    is_token,
    split_list,
    split_parameters,
    unquote,
)
from fastapi_cacheinval.grammar.surrogate_key import parse_surrogate_key
from fastapi_cacheinval.grammar.vary import add_vary, parse_vary

PARSERS: dict[str, Callable[[bytes], object]] = {
    "split_list": split_list,
    "split_parameters": split_parameters,
    "unquote": unquote,
    "is_token": is_token,
    "end_to_end": lambda value: end_to_end([(b"connection", value), (b"a", b"b")]),
    "cache_control": lambda value: cache_control.serialise(cache_control.parse([value, value])),
    "parse_date": lambda value: parse_date(value, 1.8e9),
    "parse_etag": parse_etag,
    "parse_if_none_match": lambda value: parse_if_none_match([value, value]),
    "none_match_fails": lambda value: none_match_fails(value, [value]),
    "normalise_accept_encoding": normalise_accept_encoding,
    "parse_vary": lambda value: parse_vary([value, value]),
    "add_vary": lambda value: add_vary([(b"vary", value)], [b"a"]),
    "parse_cache_status": parse_cache_status,
    "parse_surrogate_key": lambda value: parse_surrogate_key([value, value]),
}

PATTERNS = (
    b'"',
    b"\\",
    b'\\"',
    b'"\\',
    b'",',
    b'"a',
    b'",W/',
    b",",
    b" ",
    b" ,\t",
    b";",
    b'a;b="',
    b"a;b;",
    b'a="',
    b'private="a, ',
    b"max-age=1,",
    b"max-age=9",
    b"0",
    b"9",
    b"a",
    b"a,",
    b"*",
    b"*,",
    b"\x00",
    b"\xff",
    b'"a"x,',
    b'W/"a", ',
)

LENGTH = 64 * 1024


@pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS)
def test_a_huge_value_takes_time_in_proportion_to_its_length(
    parser: Callable[[bytes], object],
) -> None:
    """64 KiB of any pattern, closed or not, cost well under what one quadratic scan would."""
    for pattern in PATTERNS:
        body = pattern * (LENGTH // len(pattern))
        for value in (b'a="' + body, body + b'"\x00'):
            started = process_time()
            parser(value)
            # Linear parsers need hundredths of a second of CPU; a quadratic one, many seconds.
            assert process_time() - started < 2


@pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS)
@given(value=st.binary() | st.lists(st.sampled_from(PATTERNS)).map(b"".join))
@settings(max_examples=60)
def test_arbitrary_bytes_never_raise(parser: Callable[[bytes], object], value: bytes) -> None:
    """No sequence of octets, random or made of the grammar's own pieces, is an error."""
    parser(value)
