"""For how long a CDN in front may keep an answer, by which tags it is purged, and who is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import Response
from fastapi.responses import StreamingResponse

from fastapi_cacheinval import CacheMiddleware, ConfigurationError, HTTPCache, add_tags, cached
from tests.framework.downstream.told import (
    VIA,
    a_hit,
    a_stale_hit,
    forbidden,
    keys,
    lifetime,
    of_items,
    read_and_write,
    shop_in_front,
    told_nothing,
)

pytestmark = pytest.mark.anyio


async def test_first_answer_and_hits_carry_lifetime_and_tags() -> None:
    """The stored lifetime and every tag, the path's included, on the first answer as on a hit."""
    shop = shop_in_front()
    read_and_write(shop)
    first = await shop.ask("/items/a", headers=VIA)
    hit = a_hit(await shop.ask("/items/a", headers=VIA))
    for answer in (first, hit):
        assert lifetime(answer) == "max-age=60"
        assert keys(answer) == of_items("a")
        assert answer.headers["cache-control"] == "no-cache"
        assert not answer.fields("surrogate-key")


async def test_age_counts_against_the_lifetime() -> None:
    """What is left by `max-age` less `Age` is what is left here, at any age: a CDN subtracts it."""
    shop = shop_in_front()
    read_and_write(shop)
    await shop.ask("/items/a", headers=VIA)
    for gone in (10, 35, 14):
        shop.clock.tick(gone)
        hit = a_hit(await shop.ask("/items/a", headers=VIA))
        assert hit.cache is not None
        assert lifetime(hit) == "max-age=60"
        assert 60 - int(hit.headers["age"]) == hit.cache.ttl


async def test_part_of_a_second_is_never_given_away() -> None:
    """Fractions are cut on the CDN's side: it never keeps an answer longer than it is fresh here."""
    shop = shop_in_front()
    read_and_write(shop, ttl=10.9, jitter=0)
    await shop.ask("/items/a", headers=VIA)
    shop.clock.tick(0.5)
    hit = a_hit(await shop.ask("/items/a", headers=VIA))
    assert lifetime(hit) == "max-age=10"


async def test_stale_windows_are_passed_on() -> None:
    """The windows of RFC 5861 that the policy gives hold at the CDN too."""
    shop = shop_in_front()
    read_and_write(shop, stale_while_revalidate=30, stale_if_error=600)
    answer = await shop.ask("/items/a", headers=VIA)
    assert lifetime(answer) == "max-age=60, stale-while-revalidate=30, stale-if-error=600"


async def test_what_is_stale_here_is_fresh_nowhere() -> None:
    """Served while it is refreshed: no lifetime, and only what is left of the windows."""
    shop = shop_in_front()
    read_and_write(shop, stale_while_revalidate=30, stale_if_error=600)
    await shop.ask("/items/a", headers=VIA)
    shop.clock.tick(70)
    stale = a_stale_hit(await shop.ask("/items/a", headers=VIA))
    assert lifetime(stale) == "max-age=0, stale-while-revalidate=20, stale-if-error=590"
    assert keys(stale) == of_items("a")
    await shop.refreshed()


async def test_softly_purged_answer_is_fresh_nowhere_although_it_is_young() -> None:
    """Its age is far below its lifetime: told by that, a CDN would take it for fresh."""
    shop = shop_in_front()
    read_and_write(shop, stale_while_revalidate=30)
    await shop.ask("/items/a", headers=VIA)
    shop.clock.tick(5)
    async with shop.cache:
        await shop.cache.invalidate("items", soft=True)
    shop.clock.tick(3)
    stale = a_stale_hit(await shop.ask("/items/a", headers=VIA))
    assert stale.headers["age"] == "8"
    assert lifetime(stale) == "max-age=0, stale-while-revalidate=27"
    await shop.refreshed()


async def test_answer_that_stands_in_for_an_error_is_fresh_nowhere() -> None:
    """stale-if-error: what the app cannot confirm is kept for errors alone."""
    shop = shop_in_front()
    broken = False

    @shop.app.get("/", dependencies=[cached(ttl=60, stale_if_error=600)])
    async def read() -> Response:
        return Response(status_code=503 if broken else 200)

    await shop.ask(headers=VIA)
    shop.clock.tick(100)
    broken = True
    stale = await shop.ask(headers=VIA)
    assert stale.status_code == 200
    assert lifetime(stale) == "max-age=0, stale-if-error=560"


async def test_windows_that_the_response_rules_out_are_not_passed_on() -> None:
    """`must-revalidate` rules the windows out, downstream as here."""
    shop = shop_in_front()

    @shop.app.get("/", dependencies=[cached(ttl=60, stale_while_revalidate=30)])
    async def read() -> Response:
        return Response(headers={"cache-control": "max-age=5, must-revalidate"})

    assert lifetime(await shop.ask(headers=VIA)) == "max-age=60"


async def test_revalidation_renews_the_lifetime() -> None:
    """A 304 carries lifetime, tags and age as the whole answer would."""
    shop = shop_in_front()
    read_and_write(shop)
    whole = await shop.ask("/items/a", headers=VIA)
    shop.clock.tick(20)
    conditional = {**VIA, "if-none-match": whole.headers["etag"]}
    answer = await shop.ask("/items/a", headers=conditional)
    assert (answer.status_code, answer.headers["age"]) == (304, "20")
    assert lifetime(answer) == "max-age=60"
    assert keys(answer) == of_items("a")
    shop.clock.tick(100)
    filled = await shop.ask("/items/a", headers=conditional)
    assert (filled.status_code, lifetime(filled)) == (304, "max-age=60")
    assert "age" not in filled.headers


async def test_head_is_told_as_get() -> None:
    """HEAD has the fields of GET."""
    shop = shop_in_front()
    read_and_write(shop)
    for _ in range(2):
        answer = await shop.ask("/items/a", method="HEAD", headers=VIA)
        assert (answer.body, lifetime(answer), keys(answer)) == (b"", "max-age=60", of_items("a"))


async def test_tags_found_out_while_answering_are_told() -> None:
    """Tags that the handler adds, or sets as Surrogate-Key, are at the CDN by its own field."""
    shop = shop_in_front()

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> Response:
        add_tags("found")
        return Response(headers={"Surrogate-Key": "said twice"})

    for _ in range(2):
        answer = await shop.ask(headers=VIA)
        assert keys(answer) >= {"found", "said", "twice"}
        assert not answer.fields("surrogate-key")


async def test_stream_is_kept_once_it_is_whole() -> None:
    """Tags may come until its end: the CDN keeps none that is still on its way, and any that is stored."""
    shop = shop_in_front()

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"a"
            add_tags("late")
            yield b"b"

        return StreamingResponse(chunks())

    assert forbidden(await shop.ask(headers=VIA))
    hit = a_hit(await shop.ask(headers=VIA))
    assert lifetime(hit) == "max-age=60"
    assert "late" in keys(hit)


@pytest.mark.parametrize(
    ("own", "told"), [(3600, "max-age=3600"), (5, "max-age=5"), (0, "no-store"), (None, "max-age=60")]
)
async def test_lifetime_of_its_own(own: float | None, told: str) -> None:
    """`downstream_ttl` counts from when the CDN is handed the answer; 0 keeps a route from it."""
    shop = shop_in_front()
    read_and_write(shop, downstream_ttl=own)
    assert lifetime(await shop.ask("/items/a", headers=VIA)) == told
    shop.clock.tick(20)
    hit = a_hit(await shop.ask("/items/a", headers=VIA))
    left = {"max-age=3600": "max-age=3620", "max-age=5": "max-age=25"}
    assert lifetime(hit) == left.get(told, told)


async def test_errors_keep_their_own_lifetime_at_the_cdn() -> None:
    """A 404 that is kept for 5 s here is not kept for an hour there."""
    shop = shop_in_front()

    @shop.app.get("/{status}", dependencies=[cached(statuses={200: 60, 404: 5}, ttl=60, jitter=0, downstream_ttl=3600)])
    async def read(status: int) -> Response:
        return Response(status_code=status)

    assert lifetime(await shop.ask("/404", headers=VIA)) == "max-age=5"
    assert lifetime(await shop.ask("/200", headers=VIA)) == "max-age=3600"


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_who_did_not_ask_is_told_nothing(method: str, streamed: bool) -> None:
    """One stored response, two renderings: neither first answer nor hit nor 304 shows a tag to who is no CDN."""
    shop = shop_in_front()

    @shop.app.get("/", dependencies=[cached(ttl=60, tags=["secret"])])
    async def read() -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"a"
            yield b"b"

        fields = {"surrogate-key": "handlers", "surrogate-control": "max-age=9", "cdn-cache-control": "max-age=9"}
        return StreamingResponse(chunks(), headers=fields) if streamed else Response(b"ab", headers=fields)

    for _ in range(2):
        answer = await shop.ask(method=method)
        assert told_nothing(answer)
        assert answer.headers["cache-control"] == "no-cache"
    assert keys(await shop.ask(method=method, headers=VIA)) >= {"secret", "handlers"}
    assert told_nothing(await shop.ask(method=method, headers={"if-none-match": "*"}))


async def test_routes_without_a_policy_are_untouched() -> None:
    """Their fields go out byte for byte, whoever asks."""
    shop = shop_in_front()
    said = {"surrogate-key": "mine", "surrogate-control": "max-age=7", "xkey": "own"}

    @shop.app.get("/plain")
    async def plain() -> Response:
        return Response(b"it", headers=said)

    @shop.app.get("/items/{name}", dependencies=[cached(ttl=60)])
    async def read(name: str) -> str:
        return name

    @shop.app.post("/items/plain")
    async def write() -> Response:
        return Response(headers=said)

    for path, method in (("/plain", "GET"), ("/plain", "HEAD"), ("/items/plain", "POST"), ("/nowhere", "GET")):
        with_cdn = await shop.ask(path, method=method, headers=VIA)
        without = await shop.ask(path, method=method)
        assert [pair for pair in with_cdn.raw if pair[0] != b"cacheinval-purge"] == [
            pair for pair in without.raw if pair[0] != b"cacheinval-purge"
        ]
        if path != "/nowhere" and method != "HEAD":
            assert with_cdn.headers["surrogate-control"] == "max-age=7"


async def test_clients_change_nothing_of_what_others_get() -> None:
    """Whatever a client claims in its request, what is stored and what the next is told stay the same."""
    shop = shop_in_front()
    read_and_write(shop)
    forged = {
        "x-varnish": "1",
        "surrogate-key": "evil",
        "xkey": "evil",
        "surrogate-control": "max-age=9999",
        "cdn-cache-control": "max-age=9999",
        "surrogate-capability": "x",
        "age": "5",
    }
    first = await shop.ask("/items/a", headers=forged)
    plain = a_hit(await shop.ask("/items/a"))
    through = a_hit(await shop.ask("/items/a", headers=VIA))
    assert lifetime(first) == lifetime(through) == "max-age=60"
    assert keys(first) == keys(through) == of_items("a")
    assert told_nothing(plain)


@pytest.mark.parametrize("given", ["varnish", 5, object()])
def test_what_is_no_downstream_is_refused(given: Any) -> None:
    """A mistake is told when it is made."""
    with pytest.raises(ConfigurationError, match="downstream"):
        CacheMiddleware(HTTPCache(), downstream=given)  # type: ignore[arg-type]
