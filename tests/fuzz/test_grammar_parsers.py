"""Every parser that reads fields from outside: no exception, no quadratic time, and parse∘serialise∘parse = parse."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_cacheinval.grammar.age import parse_age, serialise_age
from fastapi_cacheinval.grammar.cache_control import CacheControl, parse, serialise
from fastapi_cacheinval.grammar.cache_groups import parse_cache_groups, serialise_cache_groups
from fastapi_cacheinval.grammar.cache_status import parse_cache_status, serialise_cache_status
from fastapi_cacheinval.grammar.dates import format_date, parse_date
from fastapi_cacheinval.grammar.entity_tags import parse_etag, parse_if_none_match, serialise_etag
from fastapi_cacheinval.grammar.listed import normalise_list
from fastapi_cacheinval.grammar.no_vary_search import parse_no_vary_search, serialise_no_vary_search
from fastapi_cacheinval.grammar.ranges import (
    parse_content_range,
    parse_range,
    resolve,
    serialise_content_range,
    serialise_range,
)
from fastapi_cacheinval.grammar.structured import parse_dictionary, parse_list, serialise_dictionary, serialise_list
from fastapi_cacheinval.grammar.targeted import parse_cdn_cache_control, parse_surrogate_control, serialise_targeted
from fastapi_cacheinval.grammar.vary import ANY_FIELD, parse_vary, serialise_vary


class Pair(NamedTuple):
    """A parser of one line, its serialiser, and what it gives where there is nothing to write."""

    name: str
    read: Callable[[bytes], Any]
    write: Callable[[Any], bytes]
    void: tuple[Any, ...] = (None,)


PAIRS = [
    Pair("dictionary", lambda raw: parse_dictionary([raw]), serialise_dictionary),
    Pair("list", lambda raw: parse_list([raw]), serialise_list),
    Pair("cache-control", lambda raw: parse([raw]), serialise),
    Pair("cdn-cache-control", lambda raw: parse_cdn_cache_control([raw]), serialise_targeted, (None, CacheControl())),
    Pair("surrogate-control", lambda raw: parse_surrogate_control([raw]), serialise_targeted, (None, CacheControl())),
    Pair("cache-status", parse_cache_status, lambda found: b", ".join(map(serialise_cache_status, found))),
    Pair("cache-groups", lambda raw: parse_cache_groups([raw]), serialise_cache_groups),
    Pair("no-vary-search", lambda raw: parse_no_vary_search([raw]), serialise_no_vary_search),
    Pair("range", lambda raw: parse_range([raw]), serialise_range),
    Pair("content-range", parse_content_range, serialise_content_range),
    Pair("date", lambda raw: parse_date(raw, 1e9), format_date),
    Pair("etag", parse_etag, serialise_etag),
    Pair("age", lambda raw: parse_age([raw]), serialise_age),
    Pair("vary", lambda raw: parse_vary([raw]), serialise_vary, (ANY_FIELD,)),
]

# Pieces that mean something to one parser or another, so that what is made of them is nearly right.
WORDS = [
    b"max-age", b"s-maxage", b"no-cache", b"private", b"no-store", b"params", b"except", b"key-order", b"bytes",
    b"hit", b"fwd", b"ttl", b"W/", b"a", b"foo", b"*", b"=", b"==", b",", b", ", b";", b"; ", b'"', b'\\"', b"\\",
    b"(", b")", b" ", b"\t", b":", b"?1", b"?0", b"@", b'%"', b"%e2", b"0", b"1", b"10", b"-", b"-1", b"/", b".5",
    b"99999999999999999999", b"Thu, 18 Aug 2050 02:01:18 GMT", b"Aug", b"GMT", b"\x00", b"\xff", b"+60",
    b'"one", "two"', b"b=(1 2);x", b":YQ==:", b'%"f%c3%bc"', b"1.25", b"0-1", b"-5", b"bytes 0-4/10",
]  # fmt: skip
NEARLY = st.lists(st.sampled_from(WORDS), max_size=24).map(b"".join)
ANYTHING = st.one_of(st.binary(max_size=64), NEARLY)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
@settings(max_examples=120)
@given(raw=ANYTHING)
def test_no_bytes_raise_and_what_is_read_can_be_written_and_read_again(pair: Pair, raw: bytes) -> None:
    """Whatever came in, a second reading of what was written gives the same value."""
    found = pair.read(raw)
    if found not in pair.void and found != ():
        assert pair.read(pair.write(found)) == found


LONG = [
    b"a" * 65_536,
    b"a," * 32_768,
    b'"' * 65_536,
    b'"a' * 32_768,
    b'"\\' * 32_768,
    b"\\" * 65_536,
    b"a=" * 32_768,
    b"a;" * 32_768,
    b"a;b=" * 16_384,
    b"(" * 65_536,
    b"(a " * 21_845,
    b"(a)," * 16_384,
    b" " * 65_536,
    b", " * 32_768,
    b"1" * 65_536,
    b"bytes=" + b"0-1," * 16_384,
    b"bytes=" + b"1" * 65_536 + b"-",
    b"bytes " + b"1" * 65_536 + b"-2/3",
    b":" + b"A" * 65_536,
    b'%"' + b"%c3" * 21_845,
    b"max-age=" + b"9" * 65_536,
    b"max-age=1+" + b"9" * 65_536,
    b"params=(" + b'"a" ' * 16_384 + b")",
    b'"a", ' * 13_107 + b'"a"',
    b"W/" * 32_768,
    b"Thu," + b" " * 65_536 + b"GMT",
]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_no_64_kib_take_long(pair: Pair) -> None:
    """Each hostile value is read in a small part of a second: quadratic time would take minutes for these."""
    began = time.process_time()
    for raw in LONG:
        pair.read(raw)
    assert time.process_time() - began < 5


@settings(max_examples=100)
@given(raw=ANYTHING, length=st.integers(0, 20))
def test_resolved_ranges_lie_within_and_apart(raw: bytes, length: int) -> None:
    """What is cut exists, and no byte is sent twice."""
    spans = parse_range([b"bytes=" + raw])
    ranges = resolve(spans, length) if spans else []
    taken: list[int] = []
    for first, last in ranges:
        assert 0 <= first <= last < length
        taken += range(first, last + 1)
    assert len(taken) == len(set(taken))


@settings(max_examples=100)
@given(lines=st.lists(ANYTHING, max_size=3))
def test_a_normal_form_is_its_own_normal_form(lines: list[bytes]) -> None:
    """And joining the lines first changes nothing, where no quote is left open."""
    once = normalise_list(b"foo", lines)
    if lines:
        assert normalise_list(b"foo", [once[1:]]) == once or any(b'"' in line for line in lines)


@settings(max_examples=100)
@given(lines=st.lists(ANYTHING, max_size=3))
def test_entity_tags_of_any_lines(lines: list[bytes]) -> None:
    """`If-None-Match` never raises either."""
    found = parse_if_none_match(lines)
    assert isinstance(found, tuple) or lines[0].strip() == b"*"


@settings(max_examples=150)
@given(raw=ANYTHING, query=st.binary(max_size=40))
def test_any_query_can_be_folded_by_any_rule(raw: bytes, query: bytes) -> None:
    """A rule folds a query the same each time, and equal queries always together."""
    rule = parse_no_vary_search([raw])
    assert rule.significant(query) == rule.significant(query)
    assert len(rule.significant(query)) % 2 == 0
