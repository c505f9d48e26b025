"""`ttl_from_response` and `should_store`: what a response says of its own storing."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from fastapi import Response
from fastapi.responses import StreamingResponse

from fastapi_cacheinval import CachePolicy, ConfigurationError, ResponseToStore, cached
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.http import Shop

pytestmark = pytest.mark.anyio


def _shop(fields: dict[str, str], *, stream: bool = False, **policy: Any) -> Shop:
    shop = Shop()
    chosen: dict[str, Any] = {"ttl": 60, "jitter": 0, **policy}

    @shop.app.get("/", dependencies=[cached(**chosen)])
    async def read() -> Response:
        text = str(shop.count())
        if stream:
            return StreamingResponse(iter([text, "x"]), headers=fields)
        return Response(text, headers=fields)

    return shop


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ({}, 60),
        ({"cache-control": "max-age=10"}, 10),
        ({"cache-control": "max-age=600"}, 60),
        ({"cache-control": "max-age=10, s-maxage=20"}, 20),
        ({"cache-control": "max-age=20", "age": "5"}, 15),
        ({"cache-control": "no-cache"}, 60),
        ({"cache-control": "public"}, 60),
        ({"expires": "Thu, 01 Jan 1970 00:00:00 GMT"}, 60),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_may_shorten_its_lifetime(said: dict[str, str], seconds: int, stream: bool) -> None:
    """By `max-age` or `s-maxage`, less its `Age`, and never beyond the policy's `ttl`."""
    shop = _shop(said, stream=stream, ttl_from_response=True)
    await shop.ask()
    shop.clock.tick(seconds - 1)
    assert_hit(await shop.ask())
    shop.clock.tick(2)
    assert_miss(await shop.ask())


@pytest.mark.parametrize("said", ["max-age=0", "s-maxage=0, max-age=60", "max-age=5"])
async def test_a_response_that_is_stale_at_once_is_not_stored(said: str) -> None:
    """The detail says why, and clients see the field as the handler wrote it."""
    shop = _shop({"cache-control": said, "age": "5"}, ttl_from_response=True)
    answer = await shop.ask()
    assert answer.headers["cache-control"] == said
    assert answer.cache is not None
    assert answer.cache.detail == "not-fresh"
    assert_miss(await shop.ask())
    assert shop.calls == 2


async def test_without_the_option_the_policy_alone_decides() -> None:
    """`max-age` is for downstream caches then."""
    shop = _shop({"cache-control": "max-age=0"})
    await shop.ask()
    assert_hit(await shop.ask())


async def test_statuses_with_their_own_ttl_are_shortened_too() -> None:
    """Each from its own bound."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60, jitter=0, statuses={404: 10}, ttl_from_response=True)])
    async def read() -> Response:
        shop.count()
        return Response(status_code=404, headers={"cache-control": "max-age=30"})

    await shop.ask()
    shop.clock.tick(9)
    assert_hit(await shop.ask())
    shop.clock.tick(2)
    assert_miss(await shop.ask())


@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_function_declines_is_not_stored(stream: bool) -> None:
    """It sees the status, the fields and the whole body; the client gets its answer all the same."""
    seen: list[ResponseToStore] = []

    def decide(response: ResponseToStore) -> bool:
        seen.append(response)
        return not response.body.startswith(b"1")

    shop = _shop({"X-Kind": "a"}, stream=stream, should_store=decide)
    first = await shop.ask()
    assert first.body.startswith(b"1")
    assert (seen[0].status, seen[0].header("X-kind"), seen[0].header("x-other"), seen[0].body) == (
        200,
        "a",
        None,
        first.body,
    )
    await shop.ask()
    assert_hit(await shop.ask())
    assert len(seen) == shop.calls == 2


def _raises(response: ResponseToStore) -> bool:
    raise ZeroDivisionError


async def _later(response: ResponseToStore) -> bool:
    return True


def _forgets_to_await(response: ResponseToStore) -> Any:
    return _later(response)


@pytest.mark.parametrize("wrong", [_raises, _forgets_to_await, lambda response: 1])
async def test_a_function_that_fails_stores_nothing(wrong: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The answer goes out, the error is logged once with the route, and the refusals are counted."""
    shop = _shop({}, should_store=wrong)
    with caplog.at_level(logging.WARNING, "fastapi_cacheinval"):
        for number in range(1, 4):
            answer = await shop.ask()
            assert (answer.status_code, answer.body) == (200, str(number).encode())
            assert answer.cache is not None
            assert answer.cache.detail == "should-store-failed"
    assert len([record for record in caplog.records if "should_store" in record.message]) == 1
    assert shop.cache.statistics().refused["should-store-failed"] == 3


async def test_what_may_not_be_stored_anyway_is_not_asked_about() -> None:
    """The function can only forbid."""
    seen: list[ResponseToStore] = []

    def decide(response: ResponseToStore) -> bool:
        seen.append(response)
        return True

    shop = _shop({"set-cookie": "a=b"}, should_store=decide)
    await shop.ask()
    assert_miss(await shop.ask())
    assert not seen


async def test_a_declined_answer_replaces_nothing_by_something_older() -> None:
    """What is stored is let go of: the app has said otherwise since."""
    shop = _shop({}, stale_while_revalidate=600, should_store=lambda response: response.body == b"1")
    await shop.ask()
    shop.clock.tick(61)
    await shop.ask()
    await shop.refreshed()
    assert (await shop.ask()).body == b"3"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"should_store": 1}, "should_store is a function"),
        ({"should_store": _later}, "write def, not async def"),
        ({"ttl_from_response": 1}, "ttl_from_response is True or False"),
    ],
)
def test_a_policy_says_what_it_takes(fields: dict[str, Any], said: str) -> None:
    """When it is made."""
    with pytest.raises(ConfigurationError, match=said):
        CachePolicy(ttl=60, **fields)
