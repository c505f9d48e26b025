"""RFC 9111 section 4.4 and RFC 9875: what unsafe requests invalidate; RFC 9110 section 9.3.3: what a POST stores."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.helpers.http import settle
from tests.helpers.origin import Origin

pytestmark = pytest.mark.anyio

FRESH = {"cache-control": "max-age=600"}


async def stored_at(*paths: str, **headers: str) -> Origin:
    """An origin with a fresh stored answer for each path."""
    origin = Origin()
    for path in paths:
        origin.says({**FRESH, **headers}, path=path.partition("?")[0])
        await origin.get(path)
    return origin


async def is_stored(origin: Origin, path: str, **more: str) -> bool:
    """Whether a GET is answered without a forward."""
    before = origin.forwards
    await origin.get(path, **more)
    return origin.forwards == before


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH"])
@pytest.mark.parametrize(
    ("status", "kept"),
    [*((each, False) for each in (200, 204, 301, 303)), *((each, True) for each in (307, 308, 404, 500))],
)
async def test_4_4_unsafe_methods_that_succeed_invalidate_their_target(method: str, status: int, kept: bool) -> None:
    """All queries of the target go; an error that the app chose, and a redirect of the request itself, do nothing."""
    origin = await stored_at("/a", "/a?x=1", "/b")
    origin.forget("/a")
    origin.says({}, b"", status=status, path="/a")
    await origin.get("/a", method=method)
    origin.forget("/a")
    origin.says(FRESH, path="/a")
    assert await is_stored(origin, "/a") is kept
    assert await is_stored(origin, "/a?x=1") is kept
    assert await is_stored(origin, "/b")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "QUERY"])
async def test_4_4_safe_methods_invalidate_nothing(method: str) -> None:
    """Nor do their `Location` and cache groups."""
    origin = await stored_at("/a", **{"cache-groups": '"g"'})
    origin.says({"location": "/a", "cache-group-invalidation": '"g"'}, b"", path="/b")
    await origin.get("/b", method=method)
    assert await is_stored(origin, "/a")


@pytest.mark.parametrize("name", ["location", "content-location"])
@pytest.mark.parametrize(
    ("target", "kept"),
    [
        ("/other", False),
        ("other", False),
        ("http://test/other", False),
        ("http://test:80/other?x=1", False),
        ("http://elsewhere/other", True),
        # A proxy may have ended TLS, so that the app does not know its own scheme.
        ("https://test/other", False),
        ("//elsewhere/other", True),
        ("http://[", True),
        ("/another", True),
    ],
)
async def test_4_4_location_and_content_location_of_the_same_origin(name: str, target: str, kept: bool) -> None:
    """Both are invalidated, whatever their spelling; another origin's never."""
    origin = await stored_at("/other")
    origin.says({name: target}, b"", status=201, path="/do")
    await origin.get("/do", method="POST")
    assert await is_stored(origin, "/other") is kept


@pytest.mark.parametrize("status", [307, 308])
async def test_4_4_a_request_that_is_to_be_made_elsewhere_invalidates_nothing(status: int) -> None:
    """Neither the page that its `Location` names nor a group: nothing has been done."""
    origin = await stored_at("/login", "/b", **{"cache-groups": '"g"'})
    origin.says({"location": "/login", "cache-group-invalidation": '"g"'}, b"", status=status, path="/x")
    await origin.get("/x", method="POST")
    assert await is_stored(origin, "/login")
    assert await is_stored(origin, "/b")


async def test_4_4_an_exception_has_an_unknown_outcome_and_invalidates() -> None:
    """The origin may have done it before it failed."""
    origin = await stored_at("/a")
    origin.forget("/a")
    origin.says(error=RuntimeError("half way"), path="/a")
    with pytest.raises(RuntimeError):
        await origin.get("/a", method="PUT")
    origin.forget("/a")
    origin.says(FRESH, path="/a")
    assert not await is_stored(origin, "/a")


async def test_4_4_a_fill_that_began_before_a_write_is_not_stored_after_it() -> None:
    """The read that the write overtook answers its own client and nobody else."""
    origin = Origin()
    origin.says(FRESH, b"old")
    origin.gate = asyncio.Event()
    reading = origin.call()
    await settle()
    gate, origin.gate = origin.gate, None
    origin.forget()
    origin.says({}, b"")
    await origin.get(method="PUT")
    gate.set()
    assert (await reading.answer()).body == b"old"
    origin.forget()
    origin.says(FRESH, b"new")
    assert (await origin.get()).body == b"new"


async def test_rfc9875_cache_groups_are_invalidated_within_their_origin() -> None:
    """A group named by the answer to an unsafe request goes; other groups and other origins stay, no cascade."""
    origin = Origin()
    origin.says({**FRESH, "cache-groups": '"one", "two"'}, path="/a")
    origin.says({**FRESH, "cache-groups": '"two"'}, path="/b")
    origin.says({"cache-group-invalidation": '"one"'}, b"", path="/do")
    await origin.get("/a")
    await origin.get("/a", host="elsewhere")
    await origin.get("/b")
    await origin.get("/do", method="POST")
    assert await is_stored(origin, "/b")
    assert await is_stored(origin, "/a", host="elsewhere")
    assert not await is_stored(origin, "/a")


@pytest.mark.parametrize("field", ["surrogate-key", "cache-tag", "edge-cache-tag"])
@pytest.mark.parametrize(("tag", "encoding"), [("café", "utf-8"), ("café", "latin-1"), ("名前", "utf-8")])
async def test_a_tag_beyond_ascii_is_purged_however_the_app_has_written_it(field: str, tag: str, encoding: str) -> None:
    """Starlette writes Latin-1, most others UTF-8; by hand, and by the field of a write in either."""
    for purged_by in ("hand", "utf-8", encoding):
        origin = await stored_at("/a", **{field: tag.encode(encoding).decode("latin-1")})
        assert await is_stored(origin, "/a")
        if purged_by == "hand":
            await origin.cache.invalidate(tag)
        else:
            origin.says({"surrogate-key": tag.encode(purged_by).decode("latin-1")}, b"", path="/do")
            await origin.get("/do", method="POST")
        assert not await is_stored(origin, "/a")


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/a", "http://test/a/../a"), ("/a", "/x/../a"), ("/a", "http://test/./x/../a?b#c"), ("/", "http://test"),
        ("/", "http://test/a/.."), ("//a", "http://test//a"), ("/x//a", "http://test/x//a"), ("/a/", "http://test/a/."),
        ("/a", "/x/%2e%2E/a"), ("/a", "http://test/x/y/.%2e/%2e%2e/a"), ("/a", "x/%2e%2e/a"), ("/x/../a", "/x/%2e%2e/a"),
        ("/a", "%2E/a"), ("/a.b", "/a%2eb"), ("/a", "http://test:080/a"), ("/a", "http://test:/a"),
    ],
)  # fmt: skip
async def test_4_4_the_dots_of_a_location_are_resolved(path: str, location: str) -> None:
    """Those of a whole URL too (RFC 3986 section 5.2.2); an empty segment stays."""
    origin = await stored_at(path)
    assert await is_stored(origin, path)
    origin.says({"location": location}, b"", path="/do")
    await origin.get("/do", method="POST")
    assert not await is_stored(origin, path)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
async def test_4_4_a_location_in_bytes_beyond_ascii_is_invalidated(encoding: str) -> None:
    """As it is written, too, and not only percent-encoded."""
    origin = await stored_at("/café")
    origin.says({"location": "/café".encode(encoding).decode("latin-1")}, b"", path="/do")
    await origin.get("/do", method="POST")
    assert not await is_stored(origin, "/café")


@pytest.mark.parametrize(
    ("groups", "invalidated"),
    [
        (", ".join(f'"g{number}"' for number in range(3_000)), '"g2999"'),
        ('"g2999"', ", ".join(f'"g{number}"' for number in range(3_000))),
        (f'"{"q" * 5_000}"', f'"{"q" * 5_000}"'),
        ('"g"', ", ".join(f'"g{number}"' for number in range(10_000))),
        ('"g"', f'"{"q" * 600_000}"'),
    ],
    ids=["the page names many", "the write names many", "a long name", "too many", "too long"],
)
async def test_rfc9875_no_group_is_passed_over(groups: str, invalidated: str) -> None:
    """Each counts, however many there are; where they are more than a request may name, everything is purged."""
    origin = await stored_at("/a", **{"cache-groups": groups})
    assert await is_stored(origin, "/a")
    origin.says({"cache-group-invalidation": invalidated}, b"", path="/do")
    await origin.get("/do", method="POST")
    assert not await is_stored(origin, "/a")


async def test_rfc9875_an_answer_in_more_groups_than_one_may_have_is_not_stored() -> None:
    """What could not be purged is not kept."""
    origin = await stored_at("/a", **{"cache-groups": ", ".join(f'"g{number}"' for number in range(10_000))})
    assert not await is_stored(origin, "/a")


async def test_rfc9875_the_port_that_a_scheme_has_anyway_makes_no_other_origin() -> None:
    """RFC 9110 section 4.2.3: `http://h:80` is `http://h`, whichever of the two the page or the write was asked by."""
    origin = Origin()
    for stored, written in (
        ("h", "H:80"),
        ("h:80", "h"),
        ("h:", "h"),
        ("h", "h:080"),
        ("h:0080", "h:"),
        ("h:081", "h:81"),
    ):
        origin.says({**FRESH, "cache-groups": '"g"'}, path="/a")
        origin.says({"cache-group-invalidation": '"g"'}, b"", path="/do")
        await origin.get("/a", host=stored)
        await origin.get("/do", method="POST", host=written)
        assert not await is_stored(origin, "/a", host=stored)


@pytest.mark.parametrize("value", ["one", '"one", 1', '"one', '"ONE"', ""])
async def test_rfc9875_what_is_no_list_of_strings_is_ignored(value: str) -> None:
    """Tokens, numbers, broken strings and another case invalidate nothing."""
    origin = await stored_at("/a", **{"cache-groups": '"one"'})
    origin.says({"cache-group-invalidation": value}, b"", path="/do")
    await origin.get("/do", method="POST")
    assert await is_stored(origin, "/a")


async def test_rfc9875_an_unsafe_request_that_fails_invalidates_no_group() -> None:
    """Only a response without an error does."""
    origin = await stored_at("/a", **{"cache-groups": '"one"'})
    origin.says({"cache-group-invalidation": '"one"'}, b"", status=409, path="/do")
    await origin.get("/do", method="POST")
    assert await is_stored(origin, "/a")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("surrogate-key", "product:1 brand:2"),
        ("cache-tag", "product:1, brand:2"),
        ("edge-cache-tag", "product:1,brand:2"),
    ],
)
async def test_tags_of_cdns_are_tags_here(name: str, value: str) -> None:
    """`cache.invalidate` knows them, hard and soft."""
    origin = await stored_at("/a", "/b", **{name: value, "etag": '"1"'})
    await origin.cache.invalidate("brand:2", soft=True)
    answer = await origin.get("/a")
    assert origin.sent("if-none-match") == [b'"1"']
    await origin.cache.invalidate("product:1")
    await origin.get("/b")
    assert origin.sent("if-none-match") == []
    assert answer.fields(name) == [value.encode()]


async def test_by_hand_url_and_everything() -> None:
    """`invalidate_url` and `clear` reach what headers stored."""
    origin = await stored_at("/a", "/a?x=1", "/b")
    await origin.cache.invalidate_url("/a")
    assert not await is_stored(origin, "/a?x=1")
    assert await is_stored(origin, "/b")
    await origin.cache.clear()
    assert not await is_stored(origin, "/b")


async def test_a_receipt_of_groups_names_no_path() -> None:
    """What a listener hears of is tags and paths that exist."""
    origin = await stored_at("/a")
    heard: list[Any] = []
    origin.cache.add_observer(heard.append)
    origin.says({"cache-group-invalidation": '"one"'}, b"", path="/do")
    await origin.get("/do", method="POST")
    assert {receipt.paths for receipt in heard} == {("/do",)}


@pytest.mark.parametrize(
    ("headers", "status", "stored"),
    [
        ({**FRESH, "content-location": "/a"}, 200, True),
        ({**FRESH, "content-location": "http://test/a"}, 200, True),
        ({**FRESH}, 200, False),
        ({**FRESH, "content-location": "/b"}, 200, False),
        ({**FRESH, "content-location": "http://elsewhere/a"}, 200, False),
        ({**FRESH, "content-location": "/a"}, 201, False),
        ({"content-location": "/a", "last-modified": "Wed, 01 Jan 2020 00:00:00 GMT"}, 200, False),
        ({"cache-control": "private, max-age=60", "content-location": "/a"}, 200, False),
        ({**FRESH, "content-location": "/a", "set-cookie": "a=1"}, 200, False),
    ],
)
async def test_rfc9110_9_3_3_a_post_that_shows_its_target_is_stored_for_get(
    headers: dict[str, str], status: int, stored: bool
) -> None:
    """Only with its own target as `Content-Location`, a 200 and an explicit lifetime."""
    origin = Origin()
    origin.says(headers, b"of the POST", status=status, path="/a")
    await origin.get("/a", method="POST")
    assert await is_stored(origin, "/a") is stored


async def test_rfc9110_9_3_3_a_post_that_another_purge_overtook_is_not_stored() -> None:
    """What was purged while the POST was under way is not stored by it."""
    origin = Origin()
    origin.says({**FRESH, "content-location": "/a", "cache-tag": "t"}, b"of the POST", path="/a")
    origin.gate = asyncio.Event()
    posting = origin.call("/a", method="POST")
    await settle()
    await origin.cache.invalidate("t")
    origin.gate.set()
    await posting.answer()
    origin.gate = None
    assert not await is_stored(origin, "/a")
