"""A replica's summary is bounded, and its bytes are read back as what they were."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_cacheinval.bus.summary_codec import MOST_BYTES, decode_summary, encode_summary
from fastapi_cacheinval.core.shadowing import ShadowStatistics
from fastapi_cacheinval.core.statistics import RouteStatistics, SourceState, Statistics
from fastapi_cacheinval.core.summary import MOST_APPLIED, AppliedPurge, ReplicaSummary, rates, shortened

TEXTS = st.text(max_size=40)
COUNTS = st.dictionaries(TEXTS, st.integers(0, 2**53), max_size=4)
SECONDS = st.floats(0, 1e9)
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int": st.integers(0, 2**53),
    "float": SECONDS,
    "Mapping[str, int]": COUNTS,
    "Mapping[str, RouteStatistics]": st.dictionaries(
        TEXTS, st.builds(RouteStatistics, st.integers(0, 2**53), forward_seconds=SECONDS), max_size=3
    ),
    "ShadowStatistics": st.builds(ShadowStatistics, SECONDS, st.integers(0, 2**53), different_by_route=COUNTS),
    "Mapping[str, object]": st.dictionaries(TEXTS, st.builds(SourceState, trouble=TEXTS, lag=st.none()), max_size=2),
}
STATISTICS = st.builds(Statistics, **{each.name: KINDS[str(each.type)] for each in fields(Statistics)})
SUMMARIES = st.builds(
    ReplicaSummary,
    replica=TEXTS,
    host=TEXTS,
    pid=st.integers(1, 2**22),
    package=TEXTS,
    release=TEXTS,
    apps=st.lists(TEXTS, max_size=3).map(tuple),
    uptime=SECONDS,
    every=SECONDS,
    bound=SECONDS,
    statistics=STATISTICS,
    rates=st.dictionaries(TEXTS, SECONDS, max_size=3),
    routes_left_out=st.integers(0, 2**53),
    applied=st.lists(
        st.builds(AppliedPurge, st.integers(0, 2**53), st.integers(0, 2**53), st.none() | SECONDS, st.booleans())
    ).map(tuple),
)


def plain(**counts: Any) -> ReplicaSummary:
    """A summary with these in its statistics."""
    empty: dict[str, Any] = {
        each.name: {} if "Mapping" in str(each.type) else 0.0 if each.type == "float" else 0
        for each in fields(Statistics)
    }
    whole: dict[str, Any] = {**empty, "enabled": True, "connected": True, "shadow": ShadowStatistics(), **counts}
    statistics = Statistics(**whole)
    return ReplicaSummary(replica="ab12", host="web-1", pid=7, package="1.0", statistics=statistics)


@given(SUMMARIES)
def test_a_summary_is_read_as_it_was_written(summary: ReplicaSummary) -> None:
    """Whatever texts and numbers stand in it, and however many."""
    assert decode_summary(encode_summary(summary)) == shortened(summary)


def test_of_many_names_the_largest_stay() -> None:
    """Ten thousand names of a million characters are sixteen of 96, and only the last purges are told."""
    summary = replace(
        plain(
            refused={f"{number} {'x' * 1_000}": number for number in range(10_000)},
            sources={f"source {number}": SourceState(trouble="y" * 10_000) for number in range(100)},
        ),
        host="h" * 1_000,
        applied=tuple(AppliedPurge(1, number, 0.1, late=False) for number in range(500)),
    )
    short = shortened(summary)
    assert list(short.statistics.refused.values()) == list(range(9_999, 9_983, -1))
    assert {len(name) for name in short.statistics.refused} == {96}
    assert len(short.statistics.sources) == 16
    assert len(short.host) == 96
    assert [purge.seq for purge in short.applied] == list(range(500 - MOST_APPLIED, 500))


def test_of_ten_thousand_routes_the_busiest_stay() -> None:
    """Those that are asked now come before those that were asked more often once; the others are counted."""
    routes = {f"GET /{number}": RouteStatistics(hits=number) for number in range(10_000)}
    short = shortened(replace(plain(routes=routes), rates={"GET /7": 0.5, "GET /8": 2.0}))
    assert list(short.statistics.routes)[:4] == ["GET /8", "GET /7", "GET /9999", "GET /9998"]
    assert short.rates == {"GET /8": 2.0, "GET /7": 0.5}
    assert (len(short.statistics.routes), short.routes_left_out) == (24, 9_976)


def test_rates_are_requests_since_the_last_summary() -> None:
    """Of every kind; a route that rests has none, and no time has no rate."""
    routes = {"GET /a": RouteStatistics(hits=5, misses=3), "GET /b": RouteStatistics(hits=1)}
    assert rates(routes, {"GET /a": 2, "GET /b": 1}, 2.0) == {"GET /a": 3.0}
    assert rates(routes, {}, 0.0) == {}


def test_a_summary_never_has_more_than_16_kib() -> None:
    """Names of four bytes a character, in all that is kept by name: fewer of them are written."""
    names = {f"{number:02}{'😀' * 200}": number for number in range(50)}
    kept = ("fills", "refused", "refreshes", "purges", "l2", "downstream", "reset_causes", "mutations")
    routes = {name: RouteStatistics(hits=number) for name, number in names.items()}
    data = encode_summary(plain(**dict.fromkeys(kept, names), routes=routes))
    assert len(data) <= MOST_BYTES
    found = decode_summary(data)
    assert found is not None
    assert 0 < len(found.statistics.refused) < 16


def _forged() -> dict[str, bytes]:
    known = msgpack.unpackb(encode_summary(plain()))
    statistics = known["statistics"]
    return {
        "nothing": b"",
        "no msgpack": b"\xc1",
        "a number": msgpack.packb(1),
        "a later format": msgpack.packb({**known, "format": 2}),
        "too long": encode_summary(plain()) + b"\x00" * MOST_BYTES,
        "a text for a number": msgpack.packb({**known, "pid": "7"}),
        "a switch for a number": msgpack.packb({**known, "pid": True}),
        "no finite number": msgpack.packb({**known, "uptime": float("nan")}),
        "statistics that are none": msgpack.packb({**known, "statistics": []}),
        "counts that are texts": msgpack.packb({**known, "statistics": {**statistics, "fills": {"a": "b"}}}),
        "names that are numbers": msgpack.packb({**known, "statistics": {**statistics, "fills": {1: 1}}}),
        "a source that is none": msgpack.packb({**known, "statistics": {**statistics, "sources": {"a": 1}}}),
        "apps that are a text": msgpack.packb({**known, "apps": "shop"}),
        "purges that are a text": msgpack.packb({**known, "applied": "1"}),
        "purges of other fields": msgpack.packb({**known, "applied": [[1, 2]]}),
        "maps in maps": b"\x81\x00" * 8_000,
        "an array that says it is long": b"\xdd\xff\xff\xff\xff",
    }


@pytest.mark.parametrize("data", _forged().values(), ids=_forged())
def test_what_no_release_has_written_is_no_summary(data: bytes) -> None:
    """Anything may stand in Redis, and nobody fails by it."""
    assert decode_summary(data) is None


def test_releases_read_each_others_summaries() -> None:
    """A later one may say more, and an earlier one less: what it does not say is 0 or empty."""
    known = msgpack.unpackb(encode_summary(plain(hits=3)))
    more = {**known, "mood": "fine", "statistics": {**known["statistics"], "moods": {"fine": 1}}}
    assert decode_summary(msgpack.packb(more)) == plain(hits=3)
    less = {"format": 1, "replica": "ab12", "statistics": {"hits": 3}}
    found = decode_summary(msgpack.packb(less))
    assert found is not None
    assert (found.replica, found.pid, found.apps, found.statistics.hits, found.statistics.l2) == ("ab12", 0, (), 3, {})
