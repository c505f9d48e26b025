"""RFC 9111 section 3: what a shared cache may store."""

from __future__ import annotations

from typing import Any

import pytest

from fastapi_cacheinval import CacheMiddleware, HeaderOptions, HTTPCache
from fastapi_cacheinval.testing import FakeClock
from tests.helpers.http import ask
from tests.helpers.origin import Origin

pytestmark = pytest.mark.anyio

FRESH = "max-age=60"


@pytest.mark.parametrize(
    ("control", "stored"),
    [
        ("max-age=60", True),
        ("s-maxage=60", True),
        ("public, max-age=60", True),
        ("no-store", False),
        ("no-store, max-age=60", False),
        ("NO-STORE, max-age=60", False),
        ("private, max-age=60", False),
        ("private, public, max-age=60", False),
        ('private="x-mine", max-age=60', True),
        ("max-age=60, unheard-of", True),
        ('unheard-of="no-store", max-age=60', True),
        ('unheard-of="max-age=60"', False),
        ("max-age=60, max-age=0", False),
        ("max-age=0, max-age=60", False),
        ("max-age=soon", False),
        ("max-age='60'", False),
        ("max-age=-60", False),
        ('max-age="60"', True),
        ("max-age=060", True),
        ("max-age=99999999999999999999", True),
        ("no-cache, max-age=60", False),
        ("must-understand, max-age=60", True),
        ("must-understand, no-store, max-age=60", True),
        ("", False),
    ],
)
async def test_3_response_directives(control: str, stored: bool) -> None:
    """Unknown directives are ignored, of duplicates and conflicts the stricter holds, and nothing private is stored."""
    origin = Origin()
    origin.says([("cache-control", control)] if control else [])
    assert await origin.reused() is stored


async def test_3_two_lines_of_cache_control_hold_together() -> None:
    """A second line may forbid what the first allows."""
    origin = Origin()
    origin.says([("cache-control", FRESH), ("Cache-Control", "no-store")])
    assert await origin.reused() is False


@pytest.mark.parametrize(
    ("status", "control", "stored"),
    [
        (203, FRESH, True),
        (204, FRESH, True),
        (301, FRESH, True),
        (302, FRESH, True),
        (307, FRESH, True),
        (404, FRESH, True),
        (410, FRESH, True),
        (500, FRESH, True),
        (503, FRESH, True),
        (299, FRESH, True),
        (599, FRESH, True),
        (599, "must-understand, max-age=60", False),
        (599, "must-understand, no-store, max-age=60", False),
        (302, "", False),
        (304, FRESH, False),
    ],
)
async def test_3_any_final_status_that_says_so(status: int, control: str, stored: bool) -> None:
    """An explicit lifetime makes any final status storable; `must-understand` only those that are understood."""
    origin = Origin()
    origin.says([("cache-control", control)] if control else [], b"" if status in (204, 304) else b"x", status=status)
    assert await origin.reused() is stored


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "QUERY", "POST"])
async def test_3_only_answers_to_get_are_stored(method: str) -> None:
    """What another method gave never answers a GET."""
    origin = Origin()
    origin.says({"cache-control": FRESH})
    assert await origin.reused(method=method) is False


async def test_3_a_request_with_no_store_stores_nothing_and_drops_nothing() -> None:
    """`no-store` in a request keeps its answer out, and a client cannot empty the cache with it."""
    origin = Origin()
    origin.says({"cache-control": FRESH})
    await origin.get(headers={"cache-control": "no-store"})
    await origin.get()
    assert origin.forwards == 2
    await origin.get(headers={"cache-control": "no-store, no-cache"})
    assert origin.forwards == 3
    assert (await origin.get()).cache.hit


@pytest.mark.parametrize(
    ("control", "stored"),
    [
        ("max-age=60", False),
        ("max-age=60, proxy-revalidate", False),
        ("max-age=60, public", True),
        ("s-maxage=60", True),
        ("max-age=60, must-revalidate", True),
    ],
)
async def test_3_5_answers_to_requests_with_authorization(control: str, stored: bool) -> None:
    """They are stored only with `public`, `s-maxage` or `must-revalidate`."""
    origin = Origin()
    origin.says({"cache-control": control})
    assert await origin.reused(headers={"authorization": "Basic abc"}) is stored


@pytest.mark.parametrize(("control", "served"), [("max-age=60", False), ("max-age=60, public", True)])
async def test_3_5_who_is_authorized_gets_what_is_for_all_or_nothing(control: str, served: bool) -> None:
    """A stored answer to a stranger is given to who sends credentials only where it says that it is for all."""
    origin = Origin()
    origin.says({"cache-control": control})
    await origin.get()
    await origin.get(headers={"authorization": "Basic abc"})
    assert (origin.forwards == 1) is served


async def test_3_5_an_authorized_answer_does_not_replace_what_is_stored_for_others() -> None:
    """An answer to alice, who sent credentials, neither reaches a stranger nor drops what strangers get."""
    origin = Origin()
    origin.says({"cache-control": FRESH}, b"everybody's")
    origin.says({"cache-control": FRESH}, b"alice's")
    await origin.get()
    assert (await origin.get(headers={"authorization": "alice"})).body == b"alice's"
    assert (await origin.get()).body == b"everybody's"


async def test_3_set_cookie_is_not_stored_by_default() -> None:
    """A cookie would go to everybody; the first client has it."""
    origin = Origin()
    origin.says([("cache-control", FRESH), ("set-cookie", "a=1"), ("set-cookie", "b=2")])
    first = await origin.get()
    assert first.fields("set-cookie") == [b"a=1", b"b=2"]
    await origin.get()
    assert origin.forwards == 2


async def test_3_set_cookie_is_stored_where_that_is_chosen_and_the_response_is_explicitly_fresh() -> None:
    """The option needs an explicit lifetime: a heuristic one does not do."""
    origin = Origin(HeaderOptions(set_cookie=True))
    origin.says([("cache-control", FRESH), ("set-cookie", "a=1"), ("set-cookie", "b=2")])
    assert await origin.reused()
    assert (await origin.get()).fields("set-cookie") == [b"a=1", b"b=2"]
    other = Origin(HeaderOptions(set_cookie=True))
    other.says([("last-modified", other.date(-10_000)), ("set-cookie", "a=1")])
    assert not await other.reused()


async def test_3_1_named_fields_of_private_and_no_cache_are_not_kept() -> None:
    """The first client sees them, later ones do not (section 5.2.2.4 and 5.2.2.7)."""
    origin = Origin()
    origin.says(
        [
            ("cache-control", 'max-age=60, private="X-Mine"'),
            ("cache-control", 'no-cache="x-now, x-later"'),
            ("x-mine", "1"),
            ("x-now", "2"),
            ("x-later", "3"),
            ("x-all", "4"),
        ]
    )
    first, second = await origin.get(), await origin.get()
    assert first.fields("x-mine") == [b"1"]
    assert (second.fields("x-mine"), second.fields("x-now"), second.fields("x-later")) == ([], [], [])
    assert second.fields("x-all") == [b"4"]
    assert origin.forwards == 1


async def test_3_1_fields_survive_in_order_with_duplicates_and_hop_by_hop_ones_do_not() -> None:
    """What is stored comes back byte for byte; `Connection` and what it names stay on their connection."""
    origin = Origin()
    origin.says(
        [
            ("x-b", "  two  words\xe9"),
            ("cache-control", FRESH),
            ("link", "</a>; rel=x"),
            ("x-hop", "gone"),
            ("link", "</b>; rel=y"),
            ("connection", "x-hop, keep-alive"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("x-a", ""),
        ]
    )
    await origin.get()
    second = await origin.get()
    kept = [line for line in second.raw if line[0] not in (b"age", b"cache-status")]
    assert kept == [
        (b"x-b", b"  two  words\xe9"),
        (b"cache-control", b"max-age=60"),
        (b"link", b"</a>; rel=x"),
        (b"link", b"</b>; rel=y"),
        (b"x-a", b""),
    ]


async def test_3_3_a_body_that_ended_early_is_not_stored() -> None:
    """Neither one that broke off, nor one shorter than its length."""
    origin = Origin()
    origin.says({"cache-control": FRESH}, chunks=[b"half"], cut=True)
    origin.says({"cache-control": FRESH, "content-length": "9"}, b"short")
    origin.says({"cache-control": FRESH}, b"whole")
    with pytest.raises(RuntimeError):
        await origin.get()
    await origin.get()
    assert (await origin.get()).body == b"whole"
    assert origin.forwards == 3


async def test_3_a_stream_is_passed_on_at_once_and_stored_when_complete() -> None:
    """Chunks reach the client as they come, and the second client gets the whole."""
    origin = Origin()
    origin.says({"cache-control": FRESH}, chunks=[b"one ", b"two ", b"three"])
    first = await origin.get()
    assert [chunk for chunk in first.chunks if chunk] == [b"one ", b"two ", b"three"]
    second = await origin.get()
    assert (second.body, second.cache.hit) == (b"one two three", True)


@pytest.mark.parametrize(
    "headers",
    [
        [("cache-control", FRESH), ("vary", "*")],
        [("cache-control", FRESH), ("vary", "accept"), ("vary", ", *")],
        [("cache-control", FRESH), ("content-type", "text/event-stream")],
        [("cache-control", FRESH), ("content-length", "2000000")],
    ],
)
async def test_3_what_is_never_stored(headers: list[tuple[str, str]]) -> None:
    """`Vary: *`, event streams and bodies over the bound pass through."""
    origin = Origin(max_body_bytes=1_000)
    origin.says(headers)
    assert await origin.reused() is False


async def test_3_a_response_that_may_not_be_stored_lets_go_of_the_one_before() -> None:
    """After `no-store` the stale copy of before is never used again, not even for an error."""
    origin = Origin()
    origin.says({"cache-control": "max-age=1, stale-if-error=600"}, b"old")
    origin.says({"cache-control": "no-store"}, b"new")
    origin.says(status=503, body=b"sorry")
    await origin.get()
    origin.clock.tick(2)
    assert (await origin.get()).body == b"new"
    assert (await origin.get()).status_code == 503


async def test_3_a_get_with_content_is_forwarded_with_its_content_and_not_stored() -> None:
    """The key does not hold a body, so no answer to one is kept."""
    origin = Origin()
    origin.says({"cache-control": FRESH})
    await origin.get(headers={"content-length": "3"})
    await origin.get()
    assert origin.forwards == 2


async def test_rfc8297_early_hints_and_trailers_pass() -> None:
    """Interim messages reach the client before the response, and a response with trailers keeps them, unstored."""
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["path"])
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
        headers = [(b"cache-control", b"max-age=60")]
        trailers = scope["path"] == "/trailers"
        await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": trailers})
        await send({"type": "http.response.body", "body": b"x"})
        if trailers:
            await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})

    cached = CacheMiddleware(app, cache=HTTPCache(clock=FakeClock()), honour_headers=True)
    first: Any = await ask(cached, "/")
    assert first.messages[0]["type"] == "http.response.early_hint"
    second: Any = await ask(cached, "/")
    assert second.cache.hit
    for _ in range(2):
        trailing: Any = await ask(cached, "/trailers")
        assert trailing.messages[-1]["headers"] == [(b"x-sum", b"1")]
    assert seen == ["/", "/trailers", "/trailers"]


_FOR_ONE = [
    (200, {"cache-control": "private"}),
    (200, {"cache-control": "no-store"}),
    (200, {"cache-control": "max-age=60"}),
    (200, {"cache-control": "max-age=60", "set-cookie": "a=b"}),
    (200, {"cache-control": "public, max-age=60", "vary": "*"}),
    (200, {"cache-control": "public, max-age=60", "content-length": "2000000"}),
    (302, {"cache-control": "no-store", "location": "/login"}),
    (404, {"cache-control": "no-store"}),
    (404, {}),
    (410, {"cache-control": "private, max-age=60"}),
    (401, {}),
    (403, {"cache-control": "private"}),
]


@pytest.mark.parametrize("stored", ["max-age=60", "public, max-age=60", "s-maxage=60, stale-if-error=600"])
@pytest.mark.parametrize(("status", "headers"), _FOR_ONE)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_3_5_what_is_said_to_who_is_authorized_throws_nothing_of_strangers_out(
    method: str, status: int, headers: dict[str, str], stored: str
) -> None:
    """An answer to a request with `Authorization` that is not stored says nothing of the page that strangers share."""
    origin = Origin()
    origin.says({"cache-control": stored}, b"page")
    await origin.get()
    origin.forget()
    origin.says(headers, b"" if method == "HEAD" else b"private", status=status)
    own = await origin.get(method=method, headers={"authorization": "junk", "cache-control": "no-cache"})
    assert (own.status_code, origin.forwards) == (status, 2)
    answer = await origin.get()
    assert (answer.body, answer.cache.hit, origin.forwards) == (b"page", True, 2)


@pytest.mark.parametrize(("status", "headers"), _FOR_ONE)
async def test_3_5_what_is_said_to_who_is_authorized_takes_no_stale_page_away(
    status: int, headers: dict[str, str]
) -> None:
    """Strangers keep what stands in for an error."""
    origin = Origin()
    origin.says({"cache-control": "public, max-age=5, stale-if-error=600"}, b"page")
    await origin.get()
    origin.forget()
    origin.clock.tick(10)
    origin.says(headers, b"private", status=status)
    origin.says({}, b"down", status=503)
    await origin.get(headers={"authorization": "junk"})
    assert (await origin.get()).body == b"page"


async def test_3_5_a_body_too_large_for_one_takes_nothing_from_others() -> None:
    """Also where it shows only while the body comes."""
    origin = Origin(max_body_bytes=1000)
    origin.says({"cache-control": "max-age=60"}, b"page")
    await origin.get()
    origin.forget()
    origin.says({"cache-control": "public, max-age=60"}, chunks=[b"x" * 600, b"y" * 600])
    await origin.get(headers={"authorization": "junk"})
    assert (await origin.get()).body == b"page"
