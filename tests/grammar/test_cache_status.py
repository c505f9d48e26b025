"""Cache-Status: RFC 9211, as structured items of RFC 9651."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_cacheinval.grammar.cache_status import (
    CacheStatus,
    parse_cache_status,
    serialise_cache_status,
)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (CacheStatus(), b"cacheinval"),
        (CacheStatus(hit=True, ttl=30), b"cacheinval; hit; ttl=30"),
        (CacheStatus(hit=True, ttl=-412), b"cacheinval; hit; ttl=-412"),
        (
            CacheStatus(fwd="uri-miss", collapsed=True),
            b"cacheinval; fwd=uri-miss; collapsed",
        ),
        (
            CacheStatus(fwd="stale", fwd_status=503, ttl=-1),
            b"cacheinval; fwd=stale; fwd-status=503; ttl=-1",
        ),
        (
            CacheStatus(fwd="vary-miss", fwd_status=200, stored=True),
            b"cacheinval; fwd=vary-miss; fwd-status=200; stored",
        ),
        (CacheStatus(detail="late-purge"), b"cacheinval; detail=late-purge"),
        (CacheStatus(detail=""), b'cacheinval; detail=""'),
        (CacheStatus(detail="1st"), b'cacheinval; detail="1st"'),
        (CacheStatus(detail='a "b\\c'), b'cacheinval; detail="a \\"b\\\\c"'),
        (CacheStatus(detail="a\r\nx: y\xe9"), b'cacheinval; detail="a??x: y?"'),
        (CacheStatus(cache="edge 1"), b'"edge 1"'),
        (CacheStatus(ttl=10**18), b"cacheinval; ttl=999999999999999"),
    ],
)
def test_a_status_is_written_as_a_structured_item(status: CacheStatus, expected: bytes) -> None:
    """RFC 9211 §2: what is false or absent is left out; text can never break out of the field."""
    assert serialise_cache_status(status) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", []),
        (b"cacheinval;hit", [CacheStatus(hit=True)]),
        (b"cacheinval; hit=?1; stored=?0", [CacheStatus(hit=True)]),
        # a chain of caches and a revalidation, as in RFC 9211 §3
        (
            b'"OriginCache"; hit, "CDN Company Here"; fwd=uri-miss; collapsed; stored, Browser; fwd=uri-miss',
            [
                CacheStatus("OriginCache", hit=True),
                CacheStatus("CDN Company Here", fwd="uri-miss", collapsed=True, stored=True),
                CacheStatus("Browser", fwd="uri-miss"),
            ],
        ),
        (
            b"ExampleCache; fwd=stale; fwd-status=304; collapsed; stored",
            [CacheStatus("ExampleCache", fwd="stale", fwd_status=304, collapsed=True, stored=True)],
        ),
        # unknown parameters and wrong types are ignored, of two the last holds
        (
            b'a; key="x;y, z"; n=1.5; b=:aGk=:; d=@1; s=%"x"; t=?0; ttl=3',
            [CacheStatus("a", ttl=3)],
        ),
        (b"a; ttl=x; fwd-status=?1; hit=1; fwd=2; stored=yes; detail", [CacheStatus("a")]),
        (b"a; ttl=1; ttl=2", [CacheStatus("a", ttl=2)]),
        (b'a; detail="b, c; \\"d\\""', [CacheStatus("a", detail='b, c; "d"')]),
        (b"\t a ; hit", [CacheStatus("a", hit=True)]),
        # malformed members are skipped
        (b"1; hit, a; hit", [CacheStatus("a", hit=True)]),
        (b"?1, a", [CacheStatus("a")]),
        (b";hit, ;, a", [CacheStatus("a")]),
        (b"a b, c", [CacheStatus("c")]),
        (b"a; HIT, c", [CacheStatus("c")]),
        (b"a; ttl=, c", [CacheStatus("c")]),
        (b"a; ttl=1e5x!!\x00, c", [CacheStatus("c")]),
        (b"a; ttl=1234567890123456, c", [CacheStatus("c")]),
        (b'a; detail="b\\c", c', [CacheStatus("c")]),
        (b'a; detail="b, c', [CacheStatus("c")]),
        (b'"\xe9", c', [CacheStatus("c")]),
        (b"(a b); hit, c", [CacheStatus("c")]),
    ],
)
def test_members_are_read_tolerantly(value: bytes, expected: list[CacheStatus]) -> None:
    """Other caches' members are read, what is not understood is ignored, never an error."""
    assert repr(parse_cache_status(value)) == repr(expected)


printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12)
integers = st.none() | st.integers(-(10**15) + 1, 10**15 - 1)
statuses = st.builds(
    CacheStatus,
    cache=printable,
    hit=st.booleans(),
    fwd=st.none() | printable,
    fwd_status=integers,
    ttl=integers,
    stored=st.booleans(),
    collapsed=st.booleans(),
    detail=st.none() | printable,
)


@given(st.lists(statuses, max_size=4))
@settings(max_examples=200)
def test_serialised_statuses_are_read_back(members: list[CacheStatus]) -> None:
    """Any statuses survive as members of one field."""
    value = b", ".join(map(serialise_cache_status, members))
    assert parse_cache_status(value) == members


@given(st.text(max_size=20), st.text(max_size=20))
@settings(max_examples=200)
def test_any_text_stays_within_its_member(cache: str, detail: str) -> None:
    """Whatever the text, the field holds one member and printable ASCII only."""
    value = serialise_cache_status(CacheStatus(cache, hit=True, detail=detail))
    assert all(0x20 <= octet <= 0x7E for octet in value)
    (read,) = parse_cache_status(value)
    assert read.hit
    assert read.detail is not None
    assert len(read.detail) == len(detail)
