"""RFC 9111 sections 4.1 and 4.2: selecting, freshness lifetime and age."""

from __future__ import annotations

from typing import Any

import pytest

from fastapi_cacheinval import HeaderOptions
from tests.helpers.origin import Origin

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"cache-control": "max-age=10"}, 10),
        ({"cache-control": "s-maxage=10, max-age=99"}, 10),
        ({"cache-control": "max-age=99, s-maxage=10"}, 10),
        ({"cache-control": "max-age=0, s-maxage=10"}, 10),
        ({"cache-control": "max-age=10", "expires": -99, "date": 0}, 10),
        ({"cache-control": "max-age=10", "expires": "0"}, 10),
        ({"cache-control": "max-age=0", "expires": 99, "date": 0}, 0),
        ({"expires": 10, "date": 0}, 10),
        ({"expires": 10}, 10),
        ({"expires": 10, "date": "yesterday"}, 10),
        ({"expires": 300, "date": 400}, 0),
        ({"expires": 0, "date": 0}, 0),
        ({"expires": "0", "date": 0}, 0),
        ({"expires": "-1"}, 0),
        ({"expires": "Thu, 18 Aug 50 02:01:18 GMT"}, 0),
        ({"expires": "Thu, 18 Aug 2050 02:01:18 UTC"}, 0),
        ({"cache-control": "max-age=60", "age": "50"}, 10),
        ({"cache-control": "max-age=60", "age": "60"}, 0),
        ({"cache-control": "max-age=60", "age": "7200"}, 0),
        ({"cache-control": "max-age=60", "age": "2147483649"}, 0),
        ({"cache-control": "max-age=60", "date": -50}, 10),
        ({"cache-control": "max-age=60", "date": -50, "age": "20"}, 10),
        ({"cache-control": "max-age=60", "date": -20, "age": "50"}, 10),
        ({"cache-control": "max-age=60", "date": 500}, 60),
        ({"expires": 10, "date": -10, "age": "25"}, 0),
        ({"cache-control": "max-age=60", "age": "50, 7200"}, 10),
        ({"cache-control": "max-age=60", "age": "abc"}, 60),
        ({"cache-control": "max-age=60", "age": "-1"}, 60),
        ({"cache-control": "max-age=60", "age": "1.5"}, 60),
        ({"cache-control": "max-age=60", "age": "1;x=y"}, 60),
        ({"cache-control": "max-age=60", "age": ""}, 60),
        ({"cache-control": "max-age=60", "age": "abc, 7200"}, 60),
        ({"cache-control": "max-age=60", "age": "+7200"}, 60),
        ({"cache-control": "max-age=60", "age": "7_200"}, 60),
        ({"cache-control": "max-age=60", "age": "7200s"}, 60),
        ({"cache-control": "max-age=60", "age": '"7200"'}, 60),
        ({"cache-control": "max-age=60", "age": "\xb2"}, 60),
        ({"cache-control": "max-age=60", "age": " , 50"}, 10),
        ({"cache-control": "max-age=60", "age": "0050"}, 10),
        ({"cache-control": "max-age=60", "age": "9" * 5_000}, 0),
        ({"cache-control": "max-age=60", "date": -50, "age": "abc"}, 10),
        ({"cache-control": "max-age=60", "pragma": "no-cache"}, 60),
    ],
)
async def test_4_2_lifetime_less_age(headers: dict[str, str | int], seconds: int) -> None:
    """Numbers stand for dates so many seconds from now; the answer is used before that moment and not after."""
    origin = Origin()
    made = [(name, origin.date(value) if isinstance(value, int) else value) for name, value in headers.items()]
    origin.says([*made, ("etag", '"1"')])
    await origin.get()
    if seconds:
        origin.clock.tick(seconds - 0.5)
        assert (await origin.get()).cache.hit
        assert origin.forwards == 1
        origin.clock.tick(0.6)
    await origin.get()
    assert origin.forwards == 2


async def test_5_3_of_several_expires_the_earliest_holds_and_a_broken_one_is_past() -> None:
    """Duplicates are resolved to the stricter."""
    origin = Origin()
    origin.says([("expires", origin.date(99)), ("expires", origin.date(10))])
    await origin.get()
    origin.clock.tick(11)
    await origin.get()
    assert origin.forwards == 2
    broken = Origin()
    broken.says([("expires", broken.date(99)), ("expires", "never")])
    assert not await broken.reused()


async def test_4_2_3_age_counts_what_upstream_caches_and_the_way_took() -> None:
    """`Age` is the upstream's, the time of the forward and the time here."""
    origin = Origin()
    origin.says({"cache-control": "max-age=600", "age": "30"})
    first = await origin.get()
    assert first.fields("age") == [b"30"]
    origin.clock.tick(5)
    second = await origin.get()
    assert second.fields("age") == [b"35"]
    assert second.cache.ttl == 565


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (200, {"last-modified": -1_000, "date": 0}, 100),
        (404, {"last-modified": -1_000, "date": 0}, 100),
        (200, {"last-modified": -100_000_000, "date": 0}, 86_400),
        (200, {"last-modified": "once"}, 0),
        (200, {}, 0),
        (201, {"last-modified": -1_000}, 0),
        (302, {"last-modified": -1_000}, 0),
        (403, {"last-modified": -1_000}, 0),
        (500, {"last-modified": -1_000}, 0),
        (599, {"last-modified": -1_000}, 0),
        (599, {"last-modified": -1_000, "date": 0, "cache-control": "public"}, 100),
        (200, {"last-modified": -1_000, "cache-control": "no-cache"}, 0),
    ],
)
async def test_4_2_2_heuristic_freshness(status: int, headers: dict[str, str | int], seconds: int) -> None:
    """A tenth of the time since `Last-Modified`, at most a day, for statuses that allow it."""
    origin = Origin()
    made = [(name, origin.date(value) if isinstance(value, int) else value) for name, value in headers.items()]
    origin.says(made, status=status)
    await origin.get()
    if seconds:
        origin.clock.tick(seconds - 1)
        await origin.get()
        assert origin.forwards == 1
        origin.clock.tick(2)
    await origin.get()
    assert origin.forwards == 2


async def test_4_2_2_heuristics_can_be_switched_off_and_need_a_request_without_cookies() -> None:
    """What nobody called public, and was asked for with a cookie, may be one caller's own."""
    off = Origin(HeaderOptions(heuristic=0))
    off.says({"last-modified": off.date(-10_000)})
    assert not await off.reused()
    origin = Origin()
    origin.says({"last-modified": origin.date(-10_000)})
    assert not await origin.reused(headers={"cookie": "session=1"})


async def test_4_1_vary_selects_and_variants_stay_side_by_side() -> None:
    """Each combination of the named fields has its own answer; other fields do not matter."""
    origin = Origin()
    origin.says({"cache-control": "max-age=60", "vary": "Foo"})
    for headers in ({"foo": "1"}, {"foo": "2"}, {}, {"foo": ""}):
        await origin.get(headers=headers)
    assert origin.forwards == 4
    for headers in ({"foo": "1", "other": "x"}, {"foo": "2"}, {}, {"foo": ""}):
        assert (await origin.get(headers=headers)).cache.hit
    assert origin.forwards == 4


@pytest.mark.parametrize(
    ("name", "one", "other", "same"),
    [
        ("foo", [("foo", "1, 2")], [("foo", "1"), ("foo", "2")], True),
        ("foo", [("foo", "1,2")], [("foo", "1, 2")], False),
        ("foo", [("foo", "1,2")], [("foo", "1,,2")], False),
        ("referer", [("referer", "http://a/?ids=1,2")], [("referer", "http://a/?ids=1,,2")], False),
        ("referer", [("referer", "http://a/?ids=1,2")], [("referer", "http://a/?ids=1, 2")], False),
        ("x-filter", [("x-filter", '"a" ,"b"')], [("x-filter", '"a","b"')], False),
        ("prefer", [("prefer", "a,b")], [("prefer", " a ,  b ")], True),
        ("accept", [("accept", "text/html,a/b")], [("accept", "text/html,,  a/b")], True),
        ("accept", [("accept", 'a/b;p="x,  y"')], [("accept", 'a/b;p="x, y"')], False),
        ("accept", [("accept", 'a/b;p="x,  y')], [("accept", 'a/b;p="x, y')], False),
        ("accept", [("accept", "a/b;p=X")], [("accept", "a/b;p=x")], False),
        (
            "accept-language",
            [("accept-language", "en,de;q=0.5")],
            [("accept-language", "EN"), ("accept-language", "DE;q=0.5")],
            True,
        ),
        ("foo", [("foo", "a, b")], [("foo", "b, a")], False),
        ("foo", [("foo", "a")], [("foo", "A")], False),
        ("foo", [("foo", '"a,  b"')], [("foo", '"a, b"')], False),
        ("accept-language", [("accept-language", "en, de")], [("accept-language", "eN,De")], True),
        ("accept-language", [("accept-language", "en, de")], [("accept-language", "de, en")], False),
        ("accept-encoding", [("accept-encoding", "gzip, br")], [("accept-encoding", "br,gzip")], True),
        ("cookie", [("cookie", "a=1,2")], [("cookie", "a=1, 2")], False),
        ("cookie", [("cookie", "a=1")], [("cookie", "a=2")], False),
        ("user-agent", [("user-agent", "x (a,b)")], [("user-agent", "x (a, b)")], False),
    ],
)
async def test_4_1_values_that_mean_the_same_match(
    name: str, one: list[tuple[str, str]], other: list[tuple[str, str]], same: bool
) -> None:
    """White space and lines of lists are normalised; order, and what may be free text, is not."""
    origin = Origin()
    origin.says({"cache-control": "max-age=60", "vary": name})
    await origin.get(headers=one)
    await origin.get(headers=other)
    assert (origin.forwards == 1) is same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"path": "/a?x=1"}, {"path": "/a?x=2"}),
        ({"path": "/a"}, {"path": "/a?"}),
        ({"path": "/a?x=1&y=2"}, {"path": "/a?y=2&x=1"}),
        ({"path": "/a", "host": "one"}, {"path": "/a", "host": "two"}),
        ({"path": "/a", "scheme": "http"}, {"path": "/a", "scheme": "https"}),
        ({"path": "/a/b", "raw_path": b"/a/b"}, {"path": "/a/b", "raw_path": b"/a%2Fb"}),
    ],
)
async def test_2_the_key_is_scheme_host_path_and_raw_query(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Requests that differ in any of these never share an answer, and `%2F` is no slash to a proxy."""
    origin = Origin()
    for path in ("/a", "/a/b"):
        origin.says({"cache-control": "max-age=60"}, path=path)
    if other["path"].endswith("?"):
        other = {"path": "/a", "query_string": b"x"}
    await origin.get(**one)
    await origin.get(**other)
    assert origin.forwards == 2
