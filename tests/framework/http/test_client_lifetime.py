"""`cache_control="max-age=10"`: each client may keep its answer for ten seconds from when it gets it (RFC 9111 §4.2)."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi import Request, Response

from fastapi_cacheinval import cached
from fastapi_cacheinval.core.client_lifetime import counts_from_now, is_made_of
from tests.helpers.http import Answer, Shop

pytestmark = pytest.mark.anyio


def left_for(answer: Answer, name: str = "max-age") -> int:
    """The seconds that a cache downstream may use an answer for: its lifetime less its age."""
    found = re.search(rf"(?<![\w-]){name}=(\d+)", answer.headers["cache-control"])
    assert found is not None
    return int(found[1]) - int(answer.headers.get("age", "0"))


def shop_with(control: str, *, layered: bool = False, error: bool = False, **policy: Any) -> Shop:
    """An app whose one route is kept for a minute, and whose clients are told a lifetime of their own."""
    shop = Shop()
    fields = {"ttl": 60, "jitter": 0, "early_refresh": 0, "tags": ["it"], **policy}

    @shop.app.get("/", dependencies=[cached(cache_control=control, **fields)])
    async def read() -> Response:
        failing = error and shop.count() > 1
        return Response(b"it", status_code=503 if failing else 200)

    if layered:

        @shop.app.middleware("http")
        async def through(request: Request, call_next: Any) -> Any:
            return await call_next(request)

        shop.app.user_middleware.reverse()
    return shop


@pytest.mark.parametrize("layered", [False, True])
@pytest.mark.parametrize("age", [0, 1, 9, 10, 11, 30, 49, 50])
async def test_every_hit_gives_its_client_the_same_time(layered: bool, age: int) -> None:
    """However long the response has been here, and by whichever way the hit is answered."""
    shop = shop_with("max-age=10", layered=layered)
    assert left_for(await shop.ask()) == 10
    shop.clock.tick(age)
    for _ in range(3):
        hit = await shop.ask()
        assert left_for(hit) == 10
        assert hit.headers["age"] == str(age)
        etag = hit.headers["etag"]
    assert left_for(await shop.ask(headers={"if-none-match": etag})) == 10
    assert left_for(await shop.ask(method="HEAD")) == 10


@pytest.mark.parametrize("age", [51, 55, 59])
async def test_no_client_is_told_more_than_the_response_has_left_here(age: int) -> None:
    """The last seconds of its lifetime are the most that is told."""
    shop = shop_with("max-age=10")
    await shop.ask()
    shop.clock.tick(age)
    assert left_for(await shop.ask()) == 60 - age


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("age", [5, 30, 70])
async def test_a_stale_answer_may_not_be_kept(soft: bool, age: int) -> None:
    """Neither one that is past its lifetime, nor one that a soft purge has made stale, however young it is."""
    shop = shop_with("max-age=10", stale_while_revalidate=600)
    await shop.ask()
    shop.clock.tick(age)
    if soft:
        await shop.cache.invalidate("it", soft=True)
    answer = await shop.ask()
    assert (left_for(answer) <= 0) is (soft or age > 60)


async def test_a_stand_in_for_an_error_may_not_be_kept() -> None:
    """The next request asks again."""
    shop = shop_with("max-age=10", error=True, stale_if_error=600)
    await shop.ask()
    shop.clock.tick(70)
    answer = await shop.ask()
    assert answer.status_code == 200
    assert left_for(answer) <= 0


async def test_a_lifetime_that_is_longer_than_ours_is_the_authors_word() -> None:
    """It counts from when the response was made, as it is written, while the response is fresh."""
    shop = shop_with("public, max-age=3600")
    await shop.ask()
    shop.clock.tick(30)
    answer = await shop.ask()
    assert answer.headers["cache-control"] == "public, max-age=3600"
    assert left_for(answer) == 3570


async def test_other_directives_and_what_the_handler_says_stay_as_they_are() -> None:
    """Only lifetimes of the policy's own text follow the age."""
    shop = shop_with('public, s-maxage=20, max-age="10", stale-while-revalidate=5, stale-if-error=6, x-max-age=1')
    await shop.ask()
    shop.clock.tick(30)
    said = (await shop.ask()).headers["cache-control"]
    assert said == "public, s-maxage=50, max-age=40, stale-while-revalidate=5, stale-if-error=6, x-max-age=1"
    for control in ("no-store", "no-cache", "private"):
        other = shop_with(control)
        await other.ask()
        other.clock.tick(30)
        assert (await other.ask()).headers["cache-control"] == control


async def test_what_a_layer_makes_of_it_for_one_caller_is_that_callers_own() -> None:
    """The policy's lifetime is taken back at any age, not only as it is written."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60, jitter=0, cache_control="public, max-age=10")])
    async def read() -> str:
        return "it"

    @shop.app.middleware("http")
    async def greet(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-user"] = request.headers.get("x-user", "")
        return response

    shop.app.user_middleware.reverse()
    await shop.ask(headers={"x-user": "alice"})
    shop.clock.tick(30)
    answer = await shop.ask(headers={"x-user": "bob"})
    assert (answer.headers["x-user"], answer.headers["cache-control"]) == ("bob", "private, no-cache")


def test_which_texts_have_a_lifetime_that_follows_the_age() -> None:
    """`max-age` and `s-maxage` with a number; nothing that only looks like them."""
    assert all(map(counts_from_now, [b"max-age=1", b"public,MAX-AGE=10", b's-maxage="5"', b"a, s-maxage=0"]))
    assert not any(
        map(counts_from_now, [b"", b"no-cache", b"max-age", b"x-max-age=5", b"max-age=x", b"max-age=" + b"9" * 30])
    )
    assert is_made_of(b"public, max-age=40", b"public, max-age=10")
    assert not is_made_of(b"private, max-age=40", b"public, max-age=10")


@pytest.mark.parametrize(
    ("control", "at_30"),
    [
        ('x="max-age=10", max-age=5', 'x="max-age=10", max-age=35'),
        ('max-age=5, note="s-maxage=3, max-age=7"', 'max-age=35, note="s-maxage=3, max-age=7"'),
        (r'x="\", max-age=10", max-age=5', r'x="\", max-age=10", max-age=35'),
        ("x=max-age=7, max-age=5", "x=max-age=7, max-age=35"),
        ('x=", max-age=5', 'x=", max-age=35'),
        ("Public ,MAX-AGE=5 ,, s-maxage=6", "Public ,MAX-AGE=35 ,, s-maxage=36"),
        ("max-age=1.5, s-maxage=6", "max-age=1.5, s-maxage=36"),
        ('private="max-age=10", max-age=5', 'private="max-age=10", max-age=35'),
    ],
)
async def test_only_directives_are_rewritten(control: str, at_30: str) -> None:
    """What merely has `max-age=` in its text, and a number that is none, are sent as they are written."""
    shop = shop_with(control)
    assert (await shop.ask()).headers["cache-control"] == control
    shop.clock.tick(30)
    assert (await shop.ask()).headers["cache-control"] == at_30


def test_a_text_about_lifetimes_is_none() -> None:
    """Quoted text, a fraction, a space before the equals sign, half a pair of quotes."""
    quoted = b'x="max-age=10"'
    assert not any(map(counts_from_now, [quoted, b"max-age=1.5", b"max-age =5", b'max-age="5', b"x=max-age=5"]))
    assert not is_made_of(quoted, b'x="max-age=11"')
