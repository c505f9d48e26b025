"""RFC 9111 sections 4.3.4 and 4.3.5: which stored response a 304 or a HEAD speaks of, and what if it is another."""

from __future__ import annotations

import asyncio

import pytest

from tests.helpers.http import until
from tests.helpers.origin import Origin

pytestmark = pytest.mark.anyio

OLD = "Wed, 01 Jan 2020 00:00:00 GMT"
NEW = "Thu, 02 Jan 2020 00:00:00 GMT"


async def stale_origin(control: str = "max-age=5", **more: str) -> Origin:
    """An origin whose first answer has gone stale in the cache."""
    origin = Origin()
    origin.says({"cache-control": control, **more}, b"first")
    await origin.get()
    origin.forget()
    origin.clock.tick(10)
    return origin


@pytest.mark.parametrize(
    ("stored", "update", "confirmed"),
    [
        ({"etag": '"1"'}, {"etag": '"1"'}, True),
        ({"etag": '"1"'}, {}, True),
        ({"etag": '"1"'}, {"etag": 'W/"1"'}, True),
        ({"etag": 'W/"1"'}, {"etag": 'W/"1"'}, True),
        ({"etag": '"1"', "last-modified": OLD}, {"etag": '"1"', "last-modified": NEW}, True),
        ({"last-modified": OLD}, {"last-modified": OLD}, True),
        ({"last-modified": OLD}, {"last-modified": "Wednesday, 01-Jan-20 00:00:00 GMT"}, True),
        ({"last-modified": OLD}, {}, True),
        ({"etag": "odd"}, {"etag": "odd"}, True),
        ({"etag": '"1"'}, {"etag": '"2"'}, False),
        ({"etag": '"1"'}, {"etag": 'W/"2"'}, False),
        ({"etag": 'W/"1"'}, {"etag": '"1"'}, False),
        ({"etag": 'W/"1"'}, {"etag": 'W/"2"'}, False),
        ({"etag": '"1"', "last-modified": OLD}, {"etag": '"2"', "last-modified": OLD}, False),
        ({"etag": '"1"', "last-modified": OLD}, {"last-modified": NEW}, False),
        ({"last-modified": OLD}, {"last-modified": NEW}, False),
        ({"last-modified": OLD}, {"last-modified": "yesterday"}, False),
        ({"last-modified": OLD}, {"etag": '"1"'}, False),
        ({"etag": '"1"'}, {"last-modified": OLD}, False),
        ({"etag": "odd"}, {"etag": "other"}, False),
        ({"etag": '"1"'}, {"etag": "1"}, False),
    ],
)
async def test_4_3_4_a_304_of_another_response_renews_nothing(
    stored: dict[str, str], update: dict[str, str], confirmed: bool
) -> None:
    """The client gets the stored content only if the 304 speaks of it; else the whole, asked for without condition."""
    origin = await stale_origin(**stored)
    origin.says({"cache-control": "max-age=60", "x-new": "304", **update}, b"", status=304)
    origin.says({"cache-control": "max-age=60", "etag": '"2"'}, b"second")
    answer = await origin.get()
    assert (answer.status_code, answer.body) == (200, b"first" if confirmed else b"second")
    assert origin.forwards == (2 if confirmed else 3)
    if not confirmed:
        assert origin.sent("if-none-match") == origin.sent("if-modified-since") == []
        assert answer.fields("x-new") == []
        assert (answer.cache.fwd, answer.cache.stored) == ("stale", True)
    again = await origin.get()
    assert (again.body, again.cache.hit) == (answer.body, True)


async def test_4_3_4_two_etags_of_which_one_is_another_renew_nothing() -> None:
    """A 304 with two names cannot be known to speak of the stored one."""
    origin = await stale_origin(etag='"1"')
    origin.says([("cache-control", "max-age=60"), ("etag", '"1"'), ("etag", '"2"')], b"", status=304)
    origin.says({"cache-control": "max-age=60"}, b"second")
    assert (await origin.get()).body == b"second"


async def test_4_3_4_the_clients_own_condition_and_range_are_answered_from_the_whole() -> None:
    """The second forward is of the cache alone; the client is answered as it asked."""
    for headers, status, body in (
        ({"if-none-match": '"2"'}, 304, b""),
        ({"if-none-match": '"1"'}, 200, b"second"),
        ({"range": "bytes=0-1"}, 206, b"se"),
    ):
        origin = await stale_origin(etag='"1"')
        origin.says({"etag": '"2"'}, b"", status=304)
        origin.says({"cache-control": "max-age=60", "etag": '"2"'}, b"second")
        answer = await origin.get(headers=headers)
        assert (answer.status_code, answer.body) == (status, body)
        assert origin.sent("range") == origin.sent("if-none-match") == []


async def test_4_3_4_those_who_wait_get_the_whole_too() -> None:
    """One flight asks twice, and all of its waiters are answered by the second response."""
    origin = await stale_origin(etag='"1"')
    origin.gate = asyncio.Event()
    origin.says({"etag": '"2"'}, b"", status=304)
    origin.says({"cache-control": "max-age=60", "etag": '"2"'}, b"second")
    calls = [origin.call() for _ in range(5)]
    await until(lambda: origin.forwards == 2)
    origin.gate.set()
    assert {(await call.answer()).body for call in calls} == {b"second"}
    assert origin.forwards == 3


async def test_4_3_4_a_refresh_in_the_background_fetches_the_whole_too() -> None:
    """The stale answer goes out at once, and what comes next is the new one."""
    origin = await stale_origin("max-age=5, stale-while-revalidate=60", etag='"1"')
    origin.says({"cache-control": "max-age=60", "etag": '"2"'}, b"", status=304)
    origin.says({"cache-control": "max-age=60", "etag": '"2"'}, b"second")
    assert (await origin.get()).body == b"first"
    await until(lambda: origin.forwards == 3 and not origin.cache.statistics().refreshing)
    answer = await origin.get()
    assert (answer.body, answer.cache.hit) == (b"second", True)


async def test_4_3_4_what_fails_at_the_second_forward_is_covered_as_ever() -> None:
    """stale-if-error stands in for a 503 to the request for the whole; without it the client gets the 503."""
    for window, status in ((", stale-if-error=60", 200), ("", 503)):
        origin = await stale_origin("max-age=5" + window, etag='"1"')
        origin.says({"etag": '"2"'}, b"", status=304)
        origin.says({}, b"", status=503)
        assert (await origin.get()).status_code == status


async def test_4_3_4_a_304_to_a_request_without_condition_is_an_answer_that_nobody_can_use() -> None:
    """An origin that has nothing but 304s: what is stored stands in, stale and said to be; never where it must not."""
    origin = await stale_origin(etag='"1"')
    origin.says({"etag": '"2"'}, b"", status=304)
    answer = await origin.get()
    assert (answer.status_code, answer.body, answer.fields("etag")) == (200, b"first", [b'"1"'])
    assert (answer.cache.fwd, answer.cache.fwd_status) == ("stale", 304)
    strict = await stale_origin("max-age=5, must-revalidate", etag='"1"')
    strict.says({"etag": '"2"'}, b"", status=304)
    assert (await strict.get()).status_code == 304


async def test_4_3_4_a_304_to_a_condition_that_was_passed_on_touches_nothing_that_is_stored() -> None:
    """What one logged-in client already has says nothing of what strangers share."""
    origin = Origin()
    origin.says({"cache-control": "max-age=60", "etag": '"1"'}, b"for all")
    await origin.get()
    origin.forget()
    origin.says({"cache-control": "max-age=60", "etag": '"mine"'}, b"", status=304)
    own = await origin.get(headers={"authorization": "Basic x", "if-none-match": '"mine"'})
    assert own.status_code == 304
    again = await origin.get()
    assert (again.body, again.cache.hit) == (b"for all", True)


async def test_4_3_4_a_304_with_another_vary_renews_for_this_request_alone() -> None:
    """The content is right for the one who asked; another language is asked for anew."""
    origin = await stale_origin(etag='"1"')
    origin.says({"cache-control": "max-age=60", "etag": '"1"', "vary": "accept-language"}, b"", status=304)
    origin.says({"cache-control": "max-age=60", "etag": '"2"', "vary": "accept-language"}, b"deutsch")
    assert (await origin.get(headers={"accept-language": "en"})).body == b"first"
    assert (await origin.get(headers={"accept-language": "de"})).body == b"deutsch"
    assert (await origin.get(headers={"accept-language": "en"})).body == b"first"
    assert origin.forwards == 3


@pytest.mark.parametrize("status", [404, 410, 301, 204])
@pytest.mark.parametrize("seconds", [0, 10])
async def test_4_3_5_a_head_of_another_status_lets_go_of_what_is_stored(status: int, seconds: int) -> None:
    """A stored 404 does not outlive a HEAD that says 200, fresh or stale."""
    origin = Origin()
    origin.says({"cache-control": "max-age=5", "etag": '"1"'}, b"", status=status)
    await origin.get()
    origin.forget()
    origin.clock.tick(seconds)
    origin.says({"cache-control": "max-age=60", "etag": '"1"'}, b"", status=200)
    origin.says({"cache-control": "max-age=60"}, b"here")
    head = await origin.get(method="HEAD", headers={"cache-control": "no-cache"})
    assert (head.status_code, head.cache.stored) == (200, False)
    answer = await origin.get()
    assert (answer.status_code, answer.body) == (200, b"here")
    assert origin.sent("if-none-match") == []


@pytest.mark.parametrize("seconds", [0, 10])
async def test_4_3_5_a_head_without_a_common_validator_keeps_nothing_alive(seconds: int) -> None:
    """Nobody can tell whether the content is the same: the next GET asks the origin, also where it was still fresh."""
    for stored, said in (
        ({}, {}),
        ({}, {"etag": '"1"'}),
        ({"etag": '"1"'}, {}),
        ({"etag": '"1"'}, {"last-modified": OLD}),
    ):
        origin = Origin()
        origin.says({"cache-control": "max-age=5", **stored}, b"first")
        await origin.get()
        origin.forget()
        origin.clock.tick(seconds)
        origin.says({"cache-control": "max-age=60", **said}, b"")
        origin.says({"cache-control": "max-age=60", "etag": '"2"'}, b"second")
        assert not (await origin.get(method="HEAD", headers={"cache-control": "no-cache"})).cache.stored
        assert (await origin.get()).body == b"second"


async def test_4_3_5_a_head_of_one_caller_touches_nothing_of_strangers() -> None:
    """With `Authorization` it says nothing of a response that is not said to be for all."""
    origin = Origin()
    origin.says({"cache-control": "max-age=60", "etag": '"1"'}, b"for all")
    await origin.get()
    origin.says({"cache-control": "max-age=60", "etag": '"mine"'}, b"")
    await origin.get(method="HEAD", headers={"authorization": "Basic x"})
    assert (await origin.get()).cache.hit


@pytest.mark.parametrize("length", ["5", "05", "6", "five", "9" * 30])
async def test_4_3_5_the_length_that_a_head_says_has_to_be_that_of_the_stored_content(length: str) -> None:
    """The same ETag with another Content-Length is another response."""
    origin = await stale_origin(etag='"1"')
    origin.says({"cache-control": "max-age=60", "etag": '"1"', "content-length": length}, b"")
    origin.says({"cache-control": "max-age=60"}, b"second")
    renewed = (await origin.get(method="HEAD")).cache.stored
    assert renewed is (length in ("5", "05"))
    assert (await origin.get()).body == (b"first" if renewed else b"second")


@pytest.mark.parametrize("said", [{}, {"cache-control": "max-age=60"}, {"last-modified": OLD}])
async def test_4_3_5_a_head_that_contradicts_nothing_throws_nothing_out(said: dict[str, str]) -> None:
    """The response is stale from then on: it is validated by what it has, and may stand in for an error."""
    for status in (304, 503):
        origin = Origin()
        origin.says({"cache-control": "max-age=60, stale-if-error=600", "etag": '"1"'}, b"first")
        await origin.get()
        origin.forget()
        origin.says(said, b"")
        await origin.get(method="HEAD", headers={"cache-control": "no-cache"})
        origin.forget()
        origin.says({"cache-control": "max-age=60", "etag": '"1"'} if status == 304 else {}, b"", status=status)
        answer = await origin.get()
        assert (answer.status_code, answer.body) == (200, b"first")
        assert origin.sent("if-none-match") == [b'"1"']


async def test_4_3_5_a_head_leaves_the_other_variants_alone() -> None:
    """Only the response that the HEAD could have selected is stale."""
    origin = Origin()
    origin.says({"cache-control": "max-age=60", "vary": "accept-language"}, b"page")
    for language in ("de", "fr"):
        await origin.get(headers={"accept-language": language})
    await origin.get(method="HEAD", headers={"accept-language": "de", "cache-control": "no-cache"})
    assert (await origin.get(headers={"accept-language": "fr"})).cache.hit
    assert not (await origin.get(headers={"accept-language": "de"})).cache.hit
