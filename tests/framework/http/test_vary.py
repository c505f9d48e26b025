"""Variants: selected by Vary and by the handler's own Header(), kept side by side, bounded (RFC 9111 section 4.1)."""

from __future__ import annotations

import gzip
from typing import Annotated, Any

import pytest
from fastapi import Header, Request, Response
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from fastapi_cacheinval import cached
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.http import Answer, Shop, ask

pytestmark = pytest.mark.anyio

PAGE = b"content " * 200


def language_shop(**options: Any) -> Shop:
    """An app whose one route answers in the language that is asked for."""
    shop = Shop(**options)

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read(accept_language: Annotated[str, Header()] = "none") -> str:
        return f"{accept_language} {shop.count()}"

    return shop


def vary_shop(vary: bytes, **options: Any) -> Shop:
    """An app whose one route names what its answer depends on in Vary, and echoes it."""
    shop = Shop(**options)

    @shop.app.get("/", dependencies=[cached(ttl=60, shared=True)])
    async def read(request: Request) -> Response:
        shop.count()
        names = [name.strip().lower() for name in vary.decode().split(",")]
        text = "|".join(f"{name}={request.headers.getlist(name)}" for name in names)
        response = Response(text.encode("latin-1"))
        response.raw_headers.append((b"vary", vary))
        return response

    return shop


def plain(answer: Answer) -> bytes:
    """The content, unpacked where it is packed."""
    return gzip.decompress(answer.body) if answer.headers.get("content-encoding") == "gzip" else answer.body


async def test_four_variants_five_rounds_four_forwards() -> None:
    """Each variant is filled once and then served to those who select it, round after round."""
    shop = language_shop()
    languages = ["en", "de", "fr", "da"]
    for turn in range(5):
        for number, language in enumerate(languages, 1):
            answer = await shop.ask(headers={"accept-language": language})
            assert answer.body.decode() == f'"{language} {number}"'
            assert answer.headers["vary"] == "accept-language"
            (assert_hit if turn else assert_miss)(answer)
    assert shop.calls == 4


async def test_another_variant_is_a_vary_miss() -> None:
    """RFC 9211: the resource is known, the variant is not."""
    shop = language_shop()
    assert (
        (await shop.ask(headers={"accept-language": "en"}))
        .headers["cache-status"]
        .startswith("cacheinval; fwd=uri-miss")
    )
    assert (
        (await shop.ask(headers={"accept-language": "de"}))
        .headers["cache-status"]
        .startswith("cacheinval; fwd=vary-miss")
    )


async def test_a_handlers_header_is_compared_raw() -> None:
    """Case, white space, two lines, an empty one and none at all can all make a handler answer otherwise."""
    shop = language_shop()
    forms: list[list[tuple[str, str]]] = [
        [],
        [("accept-language", "")],
        [("accept-language", "en")],
        [("accept-language", "EN")],
        [("accept-language", "en ")],
        [("accept-language", "en"), ("accept-language", "de")],
        [("accept-language", "de"), ("accept-language", "en")],
        [("accept-language", "en, de")],
    ]
    first = [(await shop.ask(headers=form)).body for form in forms]
    again = [await shop.ask(headers=form) for form in forms]
    assert shop.calls == len(forms)
    assert [answer.body for answer in again] == first
    for answer in again:
        assert_hit(answer)


async def test_an_undeclared_header_does_not_split_the_cache() -> None:
    """What nothing reads makes no variant."""
    shop = language_shop()
    for number in range(10):
        await shop.ask(headers={"accept-language": "en", "x-number": str(number), "user-agent": str(number)})
    assert shop.calls == 1


async def test_several_fields_of_vary_select_together() -> None:
    """Each combination is a variant of its own, in any case of the names."""
    shop = vary_shop(b"X-A, x-b")
    combinations: list[dict[str, str]] = [{}, {"x-a": "1"}, {"x-b": "1"}, {"x-a": "1", "x-b": "1"}, {"x-a": "11"}]
    for turn in range(3):
        bodies = set()
        for headers in combinations:
            answer = await shop.ask(headers=headers)
            assert answer.cache is not None
            assert answer.cache.hit is bool(turn)
            bodies.add(answer.body)
        assert len(bodies) == len(combinations)
    assert shop.calls == len(combinations)


async def test_values_cannot_be_built_to_collide() -> None:
    """Two lines and one line that looks like them select different variants."""
    shop = vary_shop(b"x-a, x-b")
    forms: list[list[tuple[str, str]]] = [
        [("x-a", "1"), ("x-a", "2")],
        [("x-a", "1=1:2")],
        [("x-a", "=1:1=1:2")],
        [("x-a", "1x-b2")],
        [("x-a", "1"), ("x-b", "2")],
        [("x-a", "~" + "0" * 32)],
        [("x-a", "x" * 300)],
        [("x-a", "x" * 301)],
    ]
    expected = [(await ask(_uncached(shop), "/", headers=form)).body for form in forms]
    for _ in range(2):
        assert [(await shop.ask(headers=form)).body for form in forms] == expected


def _uncached(shop: Shop) -> Any:
    twin = vary_shop(b"x-a, x-b")
    twin.cache.enabled = False
    return twin.app


async def test_variants_are_bounded_and_the_oldest_go() -> None:
    """At most max_variants of one resource are kept, whatever clients send."""
    shop = language_shop(max_variants=32)
    for number in range(100):
        await shop.ask(headers={"accept-language": f"l{number}"})
    assert shop.cache.statistics().responses <= 33
    for number in range(99, 67, -1):
        assert_hit(await shop.ask(headers={"accept-language": f"l{number}"}))
    assert shop.calls == 100
    assert_miss(await shop.ask(headers={"accept-language": "l0"}))


async def test_a_vary_that_changes_keeps_what_was_there() -> None:
    """A response that varies by something else joins those that are kept; each request gets its own."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60, shared=True)])
    async def read(request: Request) -> Response:
        shop.count()
        by = "x-b" if "x-b" in request.headers else "x-a"
        return Response(f"{by}={request.headers.get(by)}", headers={"vary": by})

    forms: list[dict[str, str]] = [{"x-a": "1"}, {"x-b": "1"}, {"x-a": "2"}, {"x-a": "1", "x-b": "1"}]
    bodies = [(await shop.ask(headers=form)).body for form in forms]
    assert bodies[0] == b"x-a=1"
    assert (await shop.ask(headers=forms[0])).body == b"x-a=1"
    assert (await shop.ask(headers=forms[2])).body == b"x-a=2"


async def test_a_response_without_vary_replaces_the_variants() -> None:
    """Once the app says that nothing selects, the old variants are let go of."""
    shop = Shop()
    varies = True

    @shop.app.get("/", dependencies=[cached(ttl=60, shared=True)])
    async def read() -> Response:
        shop.count()
        return Response(b"it", headers={"vary": "x-a"} if varies else None)

    await shop.ask(headers={"x-a": "1"})
    await shop.ask(headers={"x-a": "2"})
    varies = False
    await shop.ask(headers={"x-a": "3"})
    for value in "123":
        assert_hit(await shop.ask(headers={"x-a": value}))
    assert shop.calls == 3


async def test_spellings_of_accept_encoding_share_a_variant() -> None:
    """White space, case, order and weights spelled otherwise say the same; a weight of 0 and an unknown word do not."""
    shop = vary_shop(b"accept-encoding")
    same = ["gzip, br", "br,gzip", "BR , gzip;q=1", "gzip;q=1.000, br;q=1.0"]
    for form in same:
        await shop.ask(headers={"accept-encoding": form})
    assert shop.calls == 1
    others = ["gzip;q=0, br", "gzip;q=0.5, br", "gzip", "identity", "", "*", "x-gzip", "gzip, br, x"]
    for form in others:
        assert_miss(await shop.ask(headers={"accept-encoding": form}))
    assert_miss(await shop.ask())
    assert shop.calls == 2 + len(others)


@pytest.mark.parametrize("where", ["inside", "outside"])
async def test_gzip_inside_and_outside(where: str) -> None:
    """Whoever can read gzip may get it, whoever cannot or will not never does, round after round."""
    shop = Shop()
    if where == "inside":
        shop.inside(GZipMiddleware)
    else:
        shop.app.add_middleware(GZipMiddleware)

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> Response:
        shop.count()
        return Response(PAGE, media_type="text/plain")

    for turn in range(3):
        for form in ("gzip", "gzip, deflate, br", None, "identity", "br", "deflate;q=0.5"):
            answer = await shop.ask(headers=None if form is None else {"accept-encoding": form})
            packed = form is not None and "gzip" in form
            assert (answer.headers.get("content-encoding") == "gzip") is packed
            assert plain(answer) == PAGE
            assert "accept-encoding" in answer.headers["vary"].lower()
            assert answer.headers["content-length"] == str(len(answer.body))
            if turn:
                assert_hit(answer)
    assert shop.calls == (1 if where == "outside" else 6)


async def test_gzip_inside_gives_each_encoding_its_own_etag() -> None:
    """RFC 9110 section 8.8.3: packed and plain bytes never share a strong entity tag."""
    shop = Shop()
    shop.inside(GZipMiddleware)

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> Response:
        return Response(PAGE, media_type="text/plain")

    packed = await shop.ask(headers={"accept-encoding": "gzip"})
    whole = await shop.ask()
    assert packed.headers["etag"] != whole.headers["etag"]
    answer = await shop.ask(headers={"if-none-match": packed.headers["etag"]})
    assert (answer.status_code, plain(answer)) == (200, PAGE)


async def test_an_encoding_with_weight_zero_answers_as_the_app_does() -> None:
    """gzip;q=0 gets what the app itself gives to it, not what was stored for gzip."""
    for form in ("gzip;q=0", "gzip;q=0, *", "identity, gzip;q=0.000"):
        answers = []
        for enabled in (False, True):
            shop = Shop()
            shop.cache.enabled = enabled
            shop.inside(GZipMiddleware)

            @shop.app.get("/", dependencies=[cached(ttl=60)])
            async def read() -> Response:
                return Response(PAGE, media_type="text/plain")

            await shop.ask(headers={"accept-encoding": "gzip"})
            answers.append(await shop.ask(headers={"accept-encoding": form}))
        assert answers[0].headers.get("content-encoding") == answers[1].headers.get("content-encoding")
        assert answers[0].body == answers[1].body


@pytest.mark.parametrize("origins", [["*"], ["https://a.example", "https://b.example"]])
async def test_cors_inside_answers_each_origin_as_the_app_would(origins: list[str]) -> None:
    """Each Origin, and none, gets the very fields that CORSMiddleware gives it, warm as cold."""

    def build(*, on: bool) -> Shop:
        shop = Shop()
        shop.cache.enabled = on
        shop.inside(CORSMiddleware, allow_origins=origins, allow_credentials=True)

        @shop.app.get("/", dependencies=[cached(ttl=60)])
        async def read() -> str:
            shop.count()
            return "it"

        return shop

    def cors_fields(answer: Answer) -> list[tuple[bytes, bytes]]:
        return [pair for pair in answer.raw if pair[0].startswith(b"access-control")]

    cached_shop, uncached = build(on=True), build(on=False)
    asked = [None, "https://a.example", "https://b.example", "https://evil.example", "null", ""]
    for _ in range(3):
        for origin in asked:
            headers = None if origin is None else {"origin": origin}
            ours, theirs = await cached_shop.ask(headers=headers), await uncached.ask(headers=headers)
            assert cors_fields(ours) == cors_fields(theirs)
            assert "origin" in ours.headers["vary"].lower()
    assert cached_shop.calls == len(asked)


async def test_a_preflight_is_the_frameworks() -> None:
    """OPTIONS is neither stored nor answered from what is stored."""
    shop = Shop()
    shop.inside(CORSMiddleware, allow_origins=["https://a.example"])

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> str:
        return "it"

    wish = {"origin": "https://a.example", "access-control-request-method": "GET"}
    for _ in range(2):
        answer = await shop.ask(method="OPTIONS", headers=wish)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-methods"]
        assert answer.fields("cache-status") == []
        await shop.ask()


async def test_a_cookie_in_vary_keeps_callers_apart() -> None:
    """Vary: Cookie makes each cookie a variant of its own."""
    shop = vary_shop(b"cookie")
    for _ in range(2):
        for who in ("alice", "bob"):
            assert who in (await shop.ask(headers={"cookie": f"user={who}"})).body.decode()
    assert shop.calls == 2
