"""Cache-Status says how every answer came, and Age how old it is (RFC 9211, RFC 9111 section 5.1)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import Depends, HTTPException, Request, Response

from fastapi_cacheinval import cached
from fastapi_cacheinval.testing import assert_hit, assert_miss, assert_stale
from tests.helpers.http import Shop, settle, until

pytestmark = pytest.mark.anyio


def shop_with(policy: Any = None, **options: Any) -> Shop:
    """An app with one cached route that answers how often it ran."""
    shop = Shop(**options)

    @shop.app.get("/", dependencies=[cached(ttl=60) if policy is None else policy])
    async def read() -> int:
        return shop.count()

    return shop


async def test_a_miss_says_that_it_was_stored_and_for_how_long() -> None:
    """A cold request: fwd=uri-miss, the remaining lifetime, stored, and no Age."""
    answer = await shop_with().ask()
    assert answer.fields("cache-status") == [b"cacheinval; fwd=uri-miss; ttl=60; stored"]
    assert_miss(answer)
    assert answer.fields("age") == []


async def test_a_hit_says_hit_with_the_remaining_lifetime() -> None:
    """A warm request is a hit whose ttl falls and whose Age grows with the clock."""
    shop = shop_with()
    await shop.ask()
    for age in (0, 1, 41.5, 59):
        shop.clock.tick(age - (shop.clock.now() - 1000))
        answer = await shop.ask()
        assert_hit(answer)
        assert answer.fields("age") == [b"%d" % int(age)]
        assert answer.fields("cache-status") == [b"cacheinval; hit; ttl=%d" % int(60 - age)]
    assert shop.calls == 1


async def test_an_expired_response_without_stale_rules_is_forwarded_as_stale() -> None:
    """At its very end a response is stale: fwd=stale, and stored again."""
    shop = shop_with()
    await shop.ask()
    shop.clock.tick(60)
    answer = await shop.ask()
    assert answer.cache is not None
    assert (answer.cache.fwd, answer.cache.stored, answer.body) == ("stale", True, b"2")


async def test_a_stale_answer_has_a_negative_ttl() -> None:
    """Served stale while a refresh runs: hit with a negative ttl, never 0."""
    shop = shop_with(cached(ttl=60, stale_while_revalidate=60))
    await shop.ask()
    shop.clock.tick(60.4)
    answer = await shop.ask()
    assert_stale(answer)
    assert answer.fields("cache-status") == [b"cacheinval; hit; ttl=-1"]
    assert answer.fields("age") == [b"60"]
    await shop.refreshed()


async def test_a_waiter_is_collapsed_and_no_hit() -> None:
    """A request that waited for another's forward says fwd=uri-miss; collapsed."""
    shop = Shop()
    gate = asyncio.Event()

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> int:
        await gate.wait()
        return shop.count()

    leader = shop.call()
    await until(lambda: shop.cache.statistics().forwards_under_way)
    waiter = shop.call()
    await settle()
    gate.set()
    await leader.answer()
    answer = await waiter.answer()
    assert answer.fields("cache-status") == [b"cacheinval; fwd=uri-miss; ttl=60; collapsed"]
    assert answer.fields("age") == [b"0"]
    assert shop.calls == 1


async def test_a_cache_that_is_off_says_bypass() -> None:
    """With the cache switched off the request is forwarded and says why."""
    shop = shop_with()
    await shop.ask()
    shop.cache.enabled = False
    answer = await shop.ask()
    assert answer.fields("cache-status") == [b"cacheinval; fwd=bypass; detail=disabled"]
    assert answer.body == b"2"


async def test_invalid_parameters_bypass() -> None:
    """Where a parameter that a tag names is invalid the app says 422 and the cache says invalid."""
    shop = Shop()

    @shop.app.get("/{number}", dependencies=[cached(ttl=60, tags=["n:{number}"])])
    async def read(number: int) -> int:
        return number

    answer = await shop.ask("/x")
    assert answer.status_code == 422
    assert answer.cache is not None
    assert (answer.cache.fwd, answer.cache.detail) == ("bypass", "invalid")


async def test_a_route_without_a_policy_says_nothing() -> None:
    """No field is added to what is not cached."""
    shop = shop_with()

    @shop.app.get("/plain")
    async def plain() -> int:
        return 1

    answer = await shop.ask("/plain")
    assert [name for name, _ in answer.raw] == [b"content-length", b"content-type"]


async def test_only_if_cached_gets_a_504_instead_of_the_app() -> None:
    """RFC 9111 section 5.2.1.7: a miss under only-if-cached is a 504, a hit a hit; the handler never runs."""
    shop = shop_with()
    wish = {"cache-control": 'max-age=0, ONLY-IF-CACHED, x="y"'}
    answer = await shop.ask(headers=wish)
    assert answer.status_code == 504
    assert answer.fields("cache-status") == [b"cacheinval; fwd=uri-miss; detail=only-if-cached"]
    assert shop.calls == 0
    await shop.ask()
    assert_hit(await shop.ask(headers=wish))
    shop.clock.tick(60)
    assert (await shop.ask(headers=wish)).status_code == 504


async def test_request_directives_cannot_switch_the_cache_off() -> None:
    """no-cache, no-store, max-age=0 and Pragma of a client are ignored in policy mode."""
    shop = shop_with()
    await shop.ask()
    for wish in ("no-cache", "no-store", "max-age=0", "min-fresh=999", "max-stale", "no-cache, no-store,,=,"):
        assert_hit(await shop.ask(headers={"cache-control": wish, "pragma": "no-cache"}))
    assert shop.calls == 1


async def test_stale_if_error_says_what_came_back() -> None:
    """A stale answer in place of a 503: fwd=stale; fwd-status=503, negative ttl."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60, stale_if_error=600)])
    async def read() -> int:
        if shop.count() > 1:
            raise HTTPException(503)
        return 1

    await shop.ask()
    shop.clock.tick(90)
    answer = await shop.ask()
    assert answer.status_code == 200
    assert answer.fields("cache-status") == [b"cacheinval; fwd=stale; fwd-status=503; ttl=-30"]
    assert_stale(answer)


async def test_stale_if_error_after_both_leaders_failed_says_so_to_waiters() -> None:
    """The waiters behind two failed leaders are told of a stale answer with the status that came back."""
    shop = Shop()
    gate = asyncio.Event()
    down = False

    @shop.app.get("/", dependencies=[cached(ttl=60, stale_if_error=600)])
    async def read() -> int:
        shop.count()
        if down:
            await gate.wait()
            raise HTTPException(503)
        return 1

    await shop.ask()
    shop.clock.tick(90)
    down = True
    calls = [shop.call() for _ in range(5)]
    await settle()
    gate.set()
    answers = [await call.answer() for call in calls]
    assert shop.calls == 3
    for answer in answers:
        assert answer.status_code == 200
        assert_stale(answer)
        assert answer.cache is not None
        assert answer.cache.fwd == "stale"
        assert answer.cache.fwd_status is not None
        assert answer.cache.fwd_status >= 500


async def test_an_overridden_dependency_that_reads_the_caller_bypasses() -> None:
    """While an override reads who asks under a bare policy, nothing is stored or served."""
    shop = Shop()

    def plain() -> str:
        return "all"

    def by_caller(request: Request) -> str:
        return request.headers.get("x-user", "")

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read(user: str = Depends(plain)) -> str:
        return user

    assert (await shop.ask()).body == b'"all"'
    shop.app.dependency_overrides[plain] = by_caller
    for user in ("alice", "bob"):
        answer = await shop.ask(headers={"x-user": user})
        assert answer.body.decode() == f'"{user}"'
        assert answer.cache is not None
        assert (answer.cache.fwd, answer.cache.detail) == ("bypass", "caller-dependent")


async def test_the_field_can_be_left_out() -> None:
    """emit_cache_status=False and emit_surrogate_key=False leave the fields out of every kind of answer."""
    shop = Shop(middleware={"emit_cache_status": False, "emit_surrogate_key": False})

    @shop.app.get("/", dependencies=[cached(ttl=60, tags=["it"], stale_while_revalidate=60)])
    async def read(response: Response) -> int:
        response.headers["surrogate-key"] = "other"
        return shop.count()

    answers = [await shop.ask(), await shop.ask()]
    shop.clock.tick(70)
    answers.append(await shop.ask())
    await shop.refreshed()
    for answer in answers:
        assert answer.fields("cache-status") == []
        assert answer.fields("surrogate-key") == []
    assert [answer.body for answer in answers] == [b"1", b"1", b"1"]


async def test_what_an_origin_said_stands_before_what_the_cache_says() -> None:
    """A Cache-Status of another cache behind the handler is kept, ours comes after it."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read(response: Response) -> int:
        response.headers["cache-status"] = "origin; hit"
        return 1

    assert (await shop.ask()).fields("cache-status")[-1].startswith(b"cacheinval; fwd=uri-miss")
    hit = await shop.ask()
    assert hit.fields("cache-status")[0] == b"origin; hit"
    assert_hit(hit)


async def test_an_age_of_the_handler_is_counted_on() -> None:
    """A response that was 30 s old when the handler passed it on says 35 five seconds later."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read(response: Response) -> int:
        response.headers["age"] = "30"
        return 1

    await shop.ask()
    shop.clock.tick(5)
    assert (await shop.ask()).fields("age") == [b"35"]
