"""Spellings that a cache reads alike and an app may not: what is filled for one never harms those who use the other."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import Header, Request, Response
from starlette.middleware.gzip import GZipMiddleware

from fastapi_cacheinval import cached
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.http import Shop, plain_of
from tests.helpers.origin import Origin

pytestmark = pytest.mark.anyio

PAGE = b"content " * 200
MODES = pytest.mark.parametrize("mode", [{}, {"honour_headers": True}], ids=["policy", "headers"])


def packing(mode: dict[str, Any]) -> Shop:
    """An app behind the stock GZip middleware, which knows the word `gzip` in lower case, on the first line alone."""
    shop = Shop(middleware=mode)
    shop.inside(GZipMiddleware)

    @shop.app.get("/", dependencies=[] if mode else [cached(ttl=60)])
    async def read() -> Response:
        shop.count()
        return Response(PAGE, media_type="text/plain", headers={"cache-control": "public, max-age=60"})

    return shop


@MODES
@pytest.mark.parametrize(
    "odd",
    [
        [("accept-encoding", "GZIP")],
        [("accept-encoding", "Gzip, Br")],
        [("accept-encoding", "br"), ("accept-encoding", "gzip")],
        [("accept-encoding", "gZip;q=1.0")],
    ],
)
@pytest.mark.parametrize("usual", ["gzip", "br, gzip"])
async def test_who_says_gzip_gets_gzip_whatever_came_first(
    mode: dict[str, Any], odd: list[tuple[str, str]], usual: str
) -> None:
    """An unusual spelling that the middleware does not understand takes nothing from the others."""
    shop = packing(mode)
    for _ in range(2):
        assert plain_of(await shop.ask(headers=odd)) == PAGE
    for _ in range(2):
        answer = await shop.ask(headers={"accept-encoding": usual})
        assert answer.headers.get("content-encoding") == "gzip"
    assert_hit(answer)
    assert plain_of(await shop.ask(headers=odd)) == PAGE
    assert shop.calls <= 2


@MODES
async def test_an_unusual_spelling_is_served_from_what_the_usual_one_filled(mode: dict[str, Any]) -> None:
    """They mean the same, and the packed bytes are right for both."""
    shop = packing(mode)
    await shop.ask(headers={"accept-encoding": "gzip"})
    answer = await shop.ask(headers={"accept-encoding": "GZIP"})
    assert answer.headers.get("content-encoding") == "gzip"
    assert_hit(answer)
    assert shop.calls == 1


async def test_an_app_that_compares_languages_with_case_is_not_poisoned() -> None:
    """`DE` fills an English page for itself, and `de` still gets the German one."""
    shop = Shop(middleware={"honour_headers": True})

    @shop.app.get("/")
    async def read(request: Request) -> Response:
        german = request.headers.get("accept-language") == "de"
        headers = {"cache-control": "max-age=60", "vary": "Accept-Language"}
        return Response("guten Tag" if german else "hello", headers=headers)

    odd: list[list[tuple[str, str]]] = [
        [("accept-language", "DE")],
        [("accept-language", "x"), ("accept-language", "de")],
        [("accept-language", ",de")],
    ]
    for headers in odd:
        assert (await shop.ask(headers=headers)).body == b"hello"
    for _ in range(2):
        assert (await shop.ask(headers={"accept-language": "de"})).body == b"guten Tag"


@MODES
async def test_junk_languages_do_not_flush_the_real_ones(mode: dict[str, Any]) -> None:
    """Two hundred values that come once leave the variants that are in use where they are."""
    shop = Shop(middleware=mode, max_variants=8)

    @shop.app.get("/", dependencies=[] if mode else [cached(ttl=60)])
    async def read(response: Response, accept_language: Annotated[str, Header()] = "none") -> str:
        shop.count()
        response.headers["cache-control"] = "public, max-age=60"
        response.headers["vary"] = "accept-language"
        return accept_language

    real = ["en", "de", "fr", "it"]
    for _ in range(2):
        for language in real:
            await shop.ask(headers={"accept-language": language})
    for number in range(200):
        await shop.ask(headers={"accept-language": f"x-junk{number}"})
        if number % 50 == 49:
            for language in real:
                assert_hit(await shop.ask(headers={"accept-language": language}))
    assert shop.calls == len(real) + 200


async def test_a_referer_is_no_list() -> None:
    """`?ids=1,2` and `?ids=1,,2` are two pages, whoever came first."""
    origin = Origin()
    origin.says({"cache-control": "max-age=60", "vary": "Referer"})
    for ids in ("1,2", "1,,2", "1, 2", "1,2,"):
        await origin.get(headers={"referer": f"http://a/?ids={ids}"})
    assert origin.forwards == 4
