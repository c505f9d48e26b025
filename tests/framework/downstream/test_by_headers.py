"""With `honour_headers` the responses' own headers say what is kept here, and so what a CDN in front may keep."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import Request, Response

from tests.framework.downstream.told import VIA, a_hit, forbidden, keys, lifetime, shop_in_front, told_nothing
from tests.helpers.http import Shop

pytestmark = pytest.mark.anyio


def origin(**fields: str) -> Shop:
    """An app with one route that says these fields, underscores for hyphens."""
    shop = shop_in_front(middleware={"honour_headers": True})

    @shop.app.get("/")
    async def read(request: Request) -> Response:
        shop.count()
        said = {name.replace("_", "-"): value for name, value in fields.items()}
        if "etag" in said and request.headers.get("if-none-match") == said["etag"]:
            return Response(status_code=304, headers=said)
        return Response(b"it", headers=said)

    return shop


async def test_stored_response_is_kept_for_as_long() -> None:
    """By its own lifetime, windows and tags, on the first answer and on hits, for who asks."""
    shop = origin(cache_control="public, max-age=60, stale-while-revalidate=9", surrogate_key="a b")
    first = await shop.ask(headers=VIA)
    shop.clock.tick(10)
    hit = a_hit(await shop.ask(headers=VIA))
    for answer in (first, hit):
        assert lifetime(answer) == "max-age=60, stale-while-revalidate=9"
        assert keys(answer) > {"a", "b"}
    assert told_nothing(await shop.ask())


async def test_lifetime_for_cdns_alone() -> None:
    """What the origin says to CDNs is for both of them, whatever browsers are told."""
    shop = origin(cache_control="private", cdn_cache_control="max-age=300")
    for _ in range(2):
        answer = await shop.ask(headers=VIA)
        assert lifetime(answer) == "max-age=300"
        assert answer.headers["cache-control"] == "private"
        assert not answer.fields("cdn-cache-control")


@pytest.mark.parametrize(
    "fields",
    [
        {"cache_control": "no-store"},
        {"cache_control": "private, max-age=60"},
        {"cache_control": "no-cache", "etag": '"a"'},
        {"cache_control": "max-age=60", "cdn_cache_control": "no-store"},
        {"cache_control": "max-age=60", "surrogate_control": "max-age=60;cacheinval", "cdn_cache_control": "no-cache"},
        {"cache_control": "max-age=60", "set_cookie": "a=b"},
        {"cache_control": "max-age=60", "vary": "*"},
    ],
)
async def test_what_the_origin_does_not_let_be_kept(fields: dict[str, Any]) -> None:
    """Nor may the CDN."""
    shop = origin(**fields)
    for _ in range(2):
        assert forbidden(await shop.ask(headers=VIA))


async def test_validated_response_has_its_lifetime_anew() -> None:
    """A 304 from the origin freshens it here, and the CDN is told so."""
    shop = origin(cache_control="max-age=60", etag='"a"', surrogate_key="a")
    await shop.ask(headers=VIA)
    shop.clock.tick(100)
    answer = await shop.ask(headers=VIA)
    assert (answer.status_code, shop.calls) == (200, 2)
    assert lifetime(answer) == "max-age=60"
    assert "a" in keys(answer)


async def test_age_of_upstream_counts() -> None:
    """A response that came with an Age has as much less to live at the CDN."""
    shop = origin(cache_control="max-age=60", age="20")
    first = await shop.ask(headers=VIA)
    assert (lifetime(first), first.headers["age"]) == ("max-age=60", "20")
    shop.clock.tick(10)
    hit = a_hit(await shop.ask(headers=VIA))
    assert (lifetime(hit), hit.headers["age"]) == ("max-age=60", "30")


async def test_head_that_goes_forward_is_not_kept() -> None:
    """Of a HEAD nothing is stored here."""
    shop = origin(cache_control="max-age=60")
    assert forbidden(await shop.ask(method="HEAD", headers=VIA))


async def test_parts_of_it() -> None:
    """A range of a stored response is as good as the whole; that there is no such range is nobody's to keep."""
    shop = origin(cache_control="max-age=60", etag='"a"')
    await shop.ask(headers=VIA)
    part = await shop.ask(headers={**VIA, "range": "bytes=0-0"})
    assert (part.status_code, lifetime(part)) == (206, "max-age=60")
    beyond = await shop.ask(headers={**VIA, "range": "bytes=9-"})
    assert (beyond.status_code, forbidden(beyond)) == (416, True)
