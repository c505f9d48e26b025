"""RFC 9213, Surrogate-Control, No-Vary-Search and RFC 9211: fields that caches read and write."""

from __future__ import annotations

import pytest

from fastapi_cacheinval import HeaderOptions
from fastapi_cacheinval.core.downstream import TAGS
from tests.helpers.origin import Origin

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("headers", "stored"),
    [
        ({"cdn-cache-control": "max-age=60"}, True),
        ({"cdn-cache-control": "max-age=60", "cache-control": "no-store"}, True),
        ({"cdn-cache-control": "max-age=60", "cache-control": "private"}, True),
        ({"cdn-cache-control": "max-age=0", "cache-control": "max-age=60"}, False),
        ({"cdn-cache-control": "no-store", "cache-control": "max-age=60"}, False),
        ({"cdn-cache-control": "private", "cache-control": "max-age=60"}, False),
        ({"cdn-cache-control": "no-cache", "cache-control": "max-age=60"}, False),
        ({"cdn-cache-control": "foobar, max-age=60"}, True),
        ({"cdn-cache-control": "max-age=60, &&&", "cache-control": "no-store"}, False),
        ({"cdn-cache-control": 'max-age="60"', "cache-control": "no-store"}, False),
        ({"cdn-cache-control": "max-age =60", "cache-control": "no-store"}, False),
        ({"cdn-cache-control": "max-age=60.5", "cache-control": "max-age=60"}, True),
        ({"cdn-cache-control": "", "cache-control": "max-age=60"}, True),
        ({"cdn-cache-control": "max-age=60; private", "cache-control": "max-age=60"}, False),
        ({"cdn-cache-control": "max-age=60;private=?0", "cache-control": "max-age=60"}, True),
        ({"cdn-cache-control": "max-age=60 no-store", "cache-control": "max-age=60"}, False),
        ({"cdn-cache-control": "max-age=-1", "cache-control": "max-age=60"}, False),
        ({"cdn-cache-control": "max-age=60", "expires": "0"}, True),
        ({"surrogate-control": "max-age=60", "cdn-cache-control": "no-store"}, True),
        ({"surrogate-control": "no-store", "cdn-cache-control": "max-age=60"}, False),
        ({"surrogate-control": "max-age=60", "cache-control": "no-store"}, True),
        ({"surrogate-control": "max-age=60;cacheinval", "cache-control": "no-store"}, True),
        ({"surrogate-control": "max-age=60;other", "cache-control": "no-store"}, False),
        ({"surrogate-control": "max-age=60;other, max-age=0;cacheinval"}, False),
        ({"surrogate-control": "MaX-aGe=60, unknown"}, True),
        ({"surrogate-control": 'content="ESI/1.0", max-age=60'}, True),
    ],
)
async def test_rfc9213_2_2_the_most_specific_field_alone_holds(headers: dict[str, str], stored: bool) -> None:
    """`Surrogate-Control`, then `CDN-Cache-Control` where it is well-formed, then `Cache-Control` and `Expires`."""
    origin = Origin()
    origin.says(headers)
    assert await origin.reused() is stored


# Values that say nothing of storing or of a lifetime; the first is on every page with an ESI include.
SILENT = ['content="ESI/1.0"', "must-revalidate", "stale-while-revalidate=600", "foo", "no-store-remote", "public"]
GUESSING = [HeaderOptions(default_ttl=60), HeaderOptions(rules=[("/*", 60)]), True]
SPEAKING = [
    {"cache-control": "private, no-store"},
    {"cache-control": "private"},
    {"cache-control": "no-cache"},
    {"cache-control": "max-age=0, must-revalidate"},
    {"cache-control": "s-maxage=0"},
    {"expires": "0"},
]


@pytest.mark.parametrize("options", GUESSING, ids=["default_ttl", "rules", "heuristic"])
@pytest.mark.parametrize("field", ["surrogate-control", "cdn-cache-control"])
@pytest.mark.parametrize("value", SILENT)
@pytest.mark.parametrize("speaking", SPEAKING, ids=str)
async def test_no_guess_goes_against_cache_control_beside_a_targeted_field_without_a_lifetime(
    options: HeaderOptions | bool, field: str, value: str, speaking: dict[str, str]
) -> None:
    """What `Cache-Control` or `Expires` forbids, or calls stale, is not fresh because a targeted field says little."""
    origin = Origin(options)
    origin.says({field: value, "last-modified": origin.date(-100_000), **speaking}, b"of nobody")
    origin.says({field: value, "last-modified": origin.date(-100_000), **speaking}, b"of bob")
    assert (await origin.get()).body == b"of nobody"
    assert (await origin.get()).body == b"of bob"


@pytest.mark.parametrize("value", SILENT)
async def test_surrogate_control_without_a_lifetime_leaves_the_other_fields_in_force(value: str) -> None:
    """The lifetime that `Cache-Control` states holds, and `CDN-Cache-Control` before it."""
    origin = Origin(HeaderOptions(default_ttl=1_000))
    origin.says({"surrogate-control": value, "cache-control": "public, s-maxage=5"})
    assert (await origin.get()).cache.ttl == 5
    origin.says(
        {"surrogate-control": value, "cache-control": "s-maxage=5", "cdn-cache-control": "max-age=9"}, path="/b"
    )
    assert (await origin.get("/b")).cache.ttl == 9
    origin.says({"surrogate-control": value}, path="/c")
    assert (await origin.get("/c")).cache.ttl == 1_000


async def test_surrogate_control_without_a_lifetime_forbids_stale_responses_all_the_same() -> None:
    """`must-revalidate` holds beside the lifetime and the window that `Cache-Control` states."""
    origin = Origin()
    origin.says({"surrogate-control": "must-revalidate", "cache-control": "max-age=5, stale-while-revalidate=600"})
    await origin.get()
    origin.clock.tick(6)
    assert not (await origin.get()).cache.hit
    # It is no word on requests with credentials.
    assert not (await origin.get(headers={"authorization": "Bearer bob"})).cache.hit


async def test_surrogate_control_that_forbids_to_share_a_field_is_not_set_aside() -> None:
    """No other caller sees the field that `private` names, although no lifetime stands beside it."""
    origin = Origin(HeaderOptions(default_ttl=60))
    origin.says({"surrogate-control": 'private="x-who"', "cache-control": "max-age=60", "x-who": "bob"})
    assert not (await origin.get()).cache.stored
    origin.says({"surrogate-control": 'private="x-who"', "x-who": "bob"}, path="/guess")
    assert (await origin.get("/guess")).cache.stored
    assert (await origin.get("/guess")).fields("x-who") == []


async def test_rfc9213_2_2_public_alone_holds_but_for_the_guess() -> None:
    """A `CDN-Cache-Control` without a lifetime takes the place of `no-store`: the app is asked each time."""
    origin = Origin()
    fields = {"cdn-cache-control": "public", "cache-control": "no-store", "etag": '"1"'}
    origin.says(fields)
    origin.says(fields, b"", status=304)
    assert (await origin.get()).cache.stored
    assert (await origin.get()).body == b"content"
    assert origin.sent("if-none-match") == [b'"1"']


async def test_surrogate_control_max_age_with_a_second_number() -> None:
    """`max-age=1+60`: stale for another minute while it is refreshed."""
    origin = Origin()
    origin.says({"surrogate-control": "max-age=1+60"})
    await origin.get()
    origin.clock.tick(30)
    assert (await origin.get()).cache.ttl < 0


async def test_rfc9213_targeted_fields_end_here() -> None:
    """Neither the first client sees them nor later ones, stored or not."""
    origin = Origin()
    origin.says({"surrogate-control": "max-age=60", "cdn-cache-control": "max-age=9", "cache-control": "no-cache"})
    for _ in range(2):
        answer = await origin.get()
        assert answer.fields("surrogate-control") == answer.fields("cdn-cache-control") == []
        assert answer.fields("cache-control") == [b"no-cache"]
    assert origin.forwards == 1
    refused = Origin()
    refused.says({"surrogate-control": "no-store", "cache-control": "max-age=60"})
    assert (await refused.get()).fields("surrogate-control") == []


@pytest.mark.parametrize("value", ["private", "no-store", "no-cache"])
async def test_rfc9213_what_forbids_storing_is_passed_on(value: str) -> None:
    """A CDN before this cache would else store by `Cache-Control` what no CDN was to store."""
    origin = Origin()
    origin.says({"cdn-cache-control": value, "cache-control": "max-age=60"})
    assert (await origin.get()).fields("cdn-cache-control") == [value.encode()]


async def test_rfc9213_a_304_without_them_keeps_what_they_said() -> None:
    """The targeted fields of the stored response still hold after it is freshened."""
    origin = Origin()
    origin.says({"cdn-cache-control": "max-age=60", "cache-control": "max-age=1", "etag": '"1"'})
    origin.says({"cache-control": "max-age=2"}, b"", status=304)
    await origin.get()
    origin.clock.tick(61)
    await origin.get()
    origin.clock.tick(30)
    assert (await origin.get()).cache.hit


async def test_the_origin_can_see_who_asks() -> None:
    """`Surrogate-Capability` names this cache, as `Surrogate-Control` can mean it alone."""
    origin = Origin()
    origin.says({})
    await origin.get()
    assert origin.sent("surrogate-capability") == [b'cacheinval="Surrogate/1.0"']


async def test_rfc9211_2_upstream_members_are_kept_and_ours_comes_last() -> None:
    """What upstream caches wrote is not touched, on a forward and on a hit."""
    origin = Origin()
    origin.says([("cache-status", "first; hit; ttl=30"), ("cache-control", "max-age=60")])
    forwarded, hit = await origin.get(), await origin.get()
    assert forwarded.fields("cache-status") == [b"first; hit; ttl=30", b"cacheinval; fwd=uri-miss; ttl=60; stored"]
    assert hit.fields("cache-status") == [b"first; hit; ttl=30", b"cacheinval; hit; ttl=60"]


@pytest.mark.parametrize(
    ("headers", "asks", "fwd", "detail"),
    [
        ([("cache-control", "no-store")], {}, "uri-miss", "no-store"),
        ([("cache-control", "private")], {}, "uri-miss", "private"),
        ([], {}, "uri-miss", "not-fresh"),
        ([("cache-control", "max-age=60"), ("set-cookie", "a=1")], {}, "uri-miss", "set-cookie"),
        ([("cache-control", "max-age=60"), ("vary", "*")], {}, "uri-miss", "vary"),
        ([("cache-control", "max-age=60")], {"authorization": "x"}, "uri-miss", "authorization"),
        ([("cache-control", "max-age=60")], {"cache-control": "no-store"}, "uri-miss", "request-no-store"),
        ([("cache-control", "max-age=60")], {"if-match": '"1"'}, "bypass", "precondition"),
    ],
)
async def test_rfc9211_2_says_why(headers: list[tuple[str, str]], asks: dict[str, str], fwd: str, detail: str) -> None:
    """Why it was forwarded, and why it was not stored."""
    origin = Origin()
    origin.says(headers)
    status = (await origin.get(headers=asks)).cache
    assert (status.fwd, status.detail, status.stored) == (fwd, detail, False)


async def test_rfc9211_2_2_vary_miss_and_request() -> None:
    """Another variant is a `vary-miss`, a client's wish is `request`."""
    origin = Origin()
    origin.says({"cache-control": "max-age=60", "vary": "foo"})
    await origin.get(headers={"foo": "1"})
    assert (await origin.get(headers={"foo": "2"})).cache.fwd == "vary-miss"
    assert (await origin.get(headers={"foo": "2", "cache-control": "no-cache"})).cache.fwd == "request"


@pytest.mark.parametrize(
    ("rule", "one", "other", "same"),
    [
        ('params=("utm")', "?a=1&utm=x", "?a=1&utm=y", True),
        ('params=("utm")', "?a=1&utm=x", "?a=1", True),
        ('params=("utm")', "?a=1&utm=x", "?a=2&utm=x", False),
        ('params=("utm")', "?a=1&b=2", "?b=2&a=1", False),
        ("key-order", "?a=1&b=2", "?b=2&a=1", True),
        ("key-order", "?a=1&a=2", "?a=2&a=1", False),
        ("params", "?a=1", "?b=2", True),
        ('params, except=("id")', "?id=1&x=1", "?y=2&id=1", True),
        ('params, except=("id")', "?id=1", "?id=2", False),
        ('params=("a b")', "?a+b=1", "?a%20b=2", True),
        ('except=("id")', "?x=1", "?x=2", False),
        ("params=(utm)", "?utm=1", "?utm=2", False),
        ("params=?0", "?utm=1", "?utm=2", False),
        ('params=("utm"', "?utm=1", "?utm=2", False),
        ("", "?utm=1", "?utm=2", False),
    ],
)
async def test_no_vary_search_folds_queries_that_are_equivalent(rule: str, one: str, other: str, same: bool) -> None:
    """By the response's own rule; what is malformed folds nothing."""
    origin = Origin()
    origin.says({"cache-control": "max-age=60", "no-vary-search": rule})
    await origin.get("/" + one)
    await origin.get("/" + other)
    assert (origin.forwards == 1) is same


async def test_no_vary_search_of_one_response_does_not_speak_for_another() -> None:
    """A response without the field answers its own query alone, whatever the path's others say."""
    origin = Origin()
    origin.says({"cache-control": "max-age=60"}, b"precise")
    origin.says({"cache-control": "max-age=60", "no-vary-search": "params"}, b"general")
    await origin.get("/?a=1")
    await origin.get("/?a=2")
    assert (await origin.get("/?a=1")).body == b"precise"
    assert (await origin.get("/?a=3")).body == b"general"
    assert origin.forwards == 2


async def test_no_vary_search_is_purged_with_its_path() -> None:
    """What all queries share goes when the path does."""
    origin = Origin()
    origin.says({"cache-control": "max-age=60", "no-vary-search": "params"})
    await origin.get("/?a=1")
    await origin.cache.invalidate_url("/")
    await origin.get("/?a=2")
    assert origin.forwards == 2


async def test_tags_that_clients_are_not_to_see_are_kept_all_the_same() -> None:
    """With `emit_surrogate_key=False` no client sees them, and after a 304 without them they still purge.

    All fields count that name tags to a CDN, `xkey` among them, which purges nothing here.
    """
    origin = Origin(emit_surrogate_key=False)
    tags = {"surrogate-key": "one", "cache-tag": "two", "edge-cache-tag": "three", "xkey": "four"}
    assert set(tags) == {name.decode() for name in TAGS}
    origin.says({"cache-control": "max-age=60", "etag": '"1"', **tags})
    origin.says({"cache-control": "max-age=60"}, b"", status=304)
    for tick in (0, 1, 61, 1):
        origin.clock.tick(tick)
        answer = await origin.get()
        assert [answer.fields(name) for name in tags] == [[], [], [], []]
    await origin.cache.invalidate("two")
    await origin.get()
    assert origin.sent("if-none-match") == []
