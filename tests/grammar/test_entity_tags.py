"""Entity tags and If-None-Match: RFC 9110 §8.8.3 and §13.1.2."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_cacheinval.grammar.entity_tags import (
    ANY,
    MAX_MEMBERS,
    AnyTag,
    EntityTag,
    make_etag,
    none_match_fails,
    parse_etag,
    parse_if_none_match,
    serialise_etag,
    strong_match,
    weak_match,
)

A, WEAK_A, B = EntityTag(b"a", False), EntityTag(b"a", True), EntityTag(b"b", False)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'"a"', A),
        (b'W/"a"', WEAK_A),
        (b' \t"a" ', A),
        (b'""', EntityTag(b"", False)),
        (b'"a\\"', EntityTag(b"a\\", False)),
        (b'"a,b"', EntityTag(b"a,b", False)),
        (b'"\xfc"', EntityTag(b"\xfc", False)),
        (b"a", None),
        (b"", None),
        (b'"', None),
        (b'"a', None),
        (b'w/"a"', None),
        (b'W"a"', None),
        (b'W/ "a"', None),
        (b'"a b"', None),
        (b'"a"b"', None),
        (b'"a", "b"', None),
        (b'"a\x00"', None),
        (b'"a\x7f"', None),
        (b"*", None),
    ],
)
def test_an_entity_tag_is_quoted(value: bytes, expected: EntityTag | None) -> None:
    """RFC 9110 §8.8.3: quotes, an optional case-sensitive W/, no white space and no escapes."""
    assert parse_etag(value) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ()),
        ([b""], ()),
        ([b"*"], ANY),
        ([b" * "], ANY),
        ([b"*, *"], ()),
        ([b"*", b"*"], ()),
        ([b'*, "a"'], (A,)),
        ([b'"*"'], (EntityTag(b"*", False),)),
        ([b'"a"'], (A,)),
        ([b'"a", W/"a","b"'], (A, WEAK_A, B)),
        ([b'"a"', b'"b"'], (A, B)),
        ([b', ,"a",,'], (A,)),
        ([b'"a,b", "b"'], (EntityTag(b"a,b", False), B)),
        ([b'"a\\", "b"'], (EntityTag(b"a\\", False), B)),
        ([b'"'], ()),
        ([b'a, "b"'], (B,)),
        ([b'"a"x, "b"'], (B,)),
        ([b'"a""b"'], ()),
        ([b'"a" "b", "b"'], (B,)),
        ([b'"x y", "b"'], (B,)),
        ([b'"b", "'], (B,)),
        ([b'w/"a", "b"'], (B,)),
    ],
)
def test_if_none_match_keeps_its_well_formed_members(
    values: list[bytes], expected: tuple[EntityTag, ...] | AnyTag
) -> None:
    """RFC 9110 §13.1.2: a list of tags, or a lone `*`; malformed members are skipped."""
    assert parse_if_none_match(values) == expected


def test_if_none_match_stops_after_its_thousandth_member() -> None:
    """The members looked at are bounded over all lines, malformed ones included."""
    line = b", ".join(b'"%d"' % number for number in range(600))
    tags = parse_if_none_match([line, line])
    assert tags is not ANY
    assert len(tags) == MAX_MEMBERS
    assert parse_if_none_match([b"x," * (MAX_MEMBERS - 1) + b'"a"']) == (A,)
    assert parse_if_none_match([b"x," * MAX_MEMBERS + b'"a"']) == ()


@pytest.mark.parametrize(
    ("a", "b", "strong", "weak"),
    [
        (EntityTag(b"1", True), EntityTag(b"1", True), False, True),
        (EntityTag(b"1", True), EntityTag(b"2", True), False, False),
        (EntityTag(b"1", True), EntityTag(b"1", False), False, True),
        (EntityTag(b"1", False), EntityTag(b"1", False), True, True),
    ],
)
def test_the_two_comparisons(a: EntityTag, b: EntityTag, strong: bool, weak: bool) -> None:
    """The table of RFC 9110 §8.8.3.2, in both directions."""
    assert strong_match(a, b) is strong_match(b, a) is strong
    assert weak_match(a, b) is weak_match(b, a) is weak


def test_a_made_etag_is_quoted_strong_and_of_the_body_alone() -> None:
    """Equal bodies have equal tags, other bodies others, and the form is a strong entity tag."""
    tag = parse_etag(make_etag(b"body"))
    assert tag is not None
    assert not tag.weak
    assert len(tag.opaque) == 32
    assert make_etag(b"body") == make_etag(b"bo" + b"dy") != make_etag(b"body2")


def test_a_made_etag_is_the_same_in_another_process() -> None:
    """A process with another hash seed makes the same tag from the same body."""
    code = "from fastapi_cacheinval.grammar.entity_tags import make_etag; print(make_etag(b'body').decode(), end='')"
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert other.stdout == make_etag(b"body")


@pytest.mark.parametrize(
    ("etag", "values", "expected"),
    [
        (b'"a"', [b'"a"'], True),
        (b'"a"', [b'W/"a"'], True),
        (b'W/"a"', [b'"a"'], True),
        (b'"a"', [b'"b"', b'"c", "a"'], True),
        (b'"a"', [b"*"], True),
        (None, [b"*"], True),
        (b'"a"', [], False),
        (b'"a"', [b""], False),
        (b'"a"', [b'"b"'], False),
        (b'"a"', [b"a"], False),
        (b'"a"', [b'"'], False),
        (b"a", [b'"a"'], False),
        (b"a", [b"a"], False),
        (None, [b'"a"'], False),
        (None, [], False),
    ],
)
def test_if_none_match_is_false_when_the_client_has_the_response(
    etag: bytes | None, values: list[bytes], expected: bool
) -> None:
    """RFC 9110 §13.1.2: compared weakly; only well-formed tags can match."""
    assert none_match_fails(etag, values) is expected


opaques = st.lists(st.sampled_from([0x21, *range(0x23, 0x7F), *range(0x80, 0x100)])).map(bytes)
tags = st.builds(EntityTag, opaques, st.booleans())


@given(st.lists(tags, max_size=6))
@settings(max_examples=200)
def test_serialised_tags_are_read_back(members: list[EntityTag]) -> None:
    """Any entity tags survive, one by one and as a list, whatever octets are in them."""
    written = [serialise_etag(tag) for tag in members]
    assert [parse_etag(value) for value in written] == members
    assert parse_if_none_match([b" ,\t".join(written)]) == tuple(members)
    assert parse_if_none_match(written) == tuple(members)


@given(st.lists(st.sampled_from([b'"', b",", b"W/", b"a", b" ", b"*", b"\\"])).map(b"".join))
@settings(max_examples=300)
def test_what_is_read_from_rubbish_is_in_it(value: bytes) -> None:
    """No entity tag is made up: each one read stands in the value as it would be written."""
    read = parse_if_none_match([value])
    if read is ANY:
        assert value.strip() == b"*"
    else:
        assert all(serialise_etag(tag) in value for tag in read)
        assert parse_if_none_match([serialise_etag(tag) for tag in read]) == read
