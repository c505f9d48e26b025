"""Collapsing, purges and bounds hold for what headers store as they do for policies."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.helpers.http import settle
from tests.helpers.origin import Origin

pytestmark = pytest.mark.anyio

FRESH = {"cache-control": "max-age=60"}


async def burst(origin: Origin, count: int = 20, **more: Any) -> list[Any]:
    """So many requests at once behind a closed gate, then all answers."""
    origin.gate = asyncio.Event()
    calls = [origin.call(**more) for _ in range(count)]
    await settle()
    origin.gate.set()
    return [await call.answer() for call in calls]


async def test_a_cold_burst_is_one_forward() -> None:
    """All wait for the one, and say so."""
    origin = Origin()
    origin.says(FRESH)
    answers = await burst(origin)
    assert origin.forwards == 1
    assert sum(answer.cache.collapsed for answer in answers) == 19
    assert {answer.body for answer in answers} == {b"content"}


@pytest.mark.parametrize(
    "headers",
    [
        {"cache-control": "private, max-age=60"},
        {"cache-control": "no-store"},
        {**FRESH, "set-cookie": "a=1"},
        {"cache-control": "no-cache", "etag": '"1"'},
        {},
    ],
)
async def test_what_may_not_be_shared_is_not_shared_through_collapsing(headers: dict[str, str]) -> None:
    """Every client gets an answer of its own."""
    origin = Origin()
    origin.says(headers)
    await burst(origin, 5)
    assert origin.forwards == 5


async def test_credentials_never_wait_and_nobody_waits_for_them() -> None:
    """A request with `Authorization` goes its own way."""
    origin = Origin()
    origin.says(FRESH)
    await burst(origin, 4, headers={"authorization": "alice"})
    assert origin.forwards == 4


async def test_a_waiter_takes_only_its_own_variant() -> None:
    """A result that another variant's request made is not taken."""
    origin = Origin()
    origin.says({**FRESH, "vary": "foo"})
    origin.gate = asyncio.Event()
    one = origin.call(headers={"foo": "1"})
    other = origin.call(headers={"foo": "2"})
    await settle()
    origin.gate.set()
    await one.answer()
    await other.answer()
    assert [origin.sent("foo", index) for index in range(origin.forwards)] == [[b"1"], [b"2"]]


async def test_if_the_first_leader_fails_another_leads() -> None:
    """One failed forward, one good one, all answered."""
    origin = Origin()
    origin.says(error=RuntimeError("first"))
    origin.says(FRESH)
    origin.gate = asyncio.Event()
    calls = [origin.call() for _ in range(5)]
    await settle()
    origin.gate.set()
    with pytest.raises(RuntimeError):
        await calls[0].answer()
    assert {(await call.answer()).status_code for call in calls[1:]} == {200}
    assert origin.forwards == 2


async def test_a_failing_status_lets_one_more_lead_and_then_releases_all() -> None:
    """503 and 503 again: two forwards one after the other, then the rest side by side."""
    origin = Origin()
    origin.says({}, b"", status=503)
    answers = await burst(origin, 5)
    assert {answer.status_code for answer in answers} == {503}
    assert origin.forwards == 5
    recovering = Origin()
    recovering.says({}, b"", status=503)
    recovering.says(FRESH)
    answers = await burst(recovering, 5)
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 503]
    assert recovering.forwards == 2


async def test_a_cancelled_leader_hands_its_lead_on() -> None:
    """The waiters still get their answer."""
    origin = Origin()
    origin.says(FRESH)
    origin.gate = asyncio.Event()
    calls = [origin.call() for _ in range(3)]
    await settle()
    calls[0].task.cancel()
    await settle()
    origin.gate.set()
    assert {(await call.answer()).status_code for call in calls[1:]} == {200}
    assert origin.forwards == 2


async def test_a_purge_during_a_forward_keeps_its_result_from_later_requests() -> None:
    """The fill is superseded: its own client has it, who came after the purge has not."""
    origin = Origin()
    origin.says({**FRESH, "cache-tag": "t"}, b"old")
    origin.says({**FRESH, "cache-tag": "t"}, b"new")
    origin.gate = asyncio.Event()
    first = origin.call()
    await settle()
    await origin.cache.invalidate("t")
    later = origin.call()
    await settle()
    origin.gate.set()
    answer: Any = await first.answer()
    assert answer.cache.detail == "superseded"
    assert (await later.answer()).body == b"new"
    assert (await origin.get()).body == b"new"


@pytest.mark.parametrize("rule", ["key-order", "params", 'params=("c")', 'params, except=("a")'])
@pytest.mark.parametrize("purged", [False, True])
async def test_who_waits_takes_what_is_kept_for_all_equivalent_queries(rule: str, purged: bool) -> None:
    """A cold burst is one forward, and two where a purge comes meanwhile, also for a page with `No-Vary-Search`."""
    origin = Origin()
    origin.says({**FRESH, "no-vary-search": rule, "cache-tag": "t"})
    origin.gate = asyncio.Event()
    calls = [origin.call("/?a=1&b=2") for _ in range(20)]
    await settle()
    if purged:
        await origin.cache.invalidate("t")
    origin.gate.set()
    answers: list[Any] = [await call.answer() for call in calls]
    assert origin.forwards == 1 + purged
    assert sum(answer.cache.collapsed for answer in answers) == 19


@pytest.mark.parametrize(
    ("varies", "value"),
    [
        ("cache-control", "max-stale=5"),
        ("pragma", "x"),
        ("if-none-match", '"x"'),
        ("if-modified-since", "Sun, 13 Sep 2020 12:26:40 GMT"),
        ("if-range", '"x"'),
    ],
)
async def test_nobody_waits_again_for_a_forward_that_was_for_nobody(varies: str, value: str) -> None:
    """A purge comes while a burst waits, and what is forwarded for it leaves out the field that decides: all go."""
    origin = Origin()
    origin.says({**FRESH, "vary": varies, "cache-tag": "t"})
    origin.gate = asyncio.Event()
    calls = [origin.call(headers={varies: value}) for _ in range(10)]
    await settle()
    await origin.cache.invalidate("t")
    origin.gate.set()
    assert {(await call.answer()).status_code for call in calls} == {200}
    assert origin.forwards <= len(calls) + 1


async def test_more_variants_than_are_kept_do_not_go_round_in_circles() -> None:
    """A purge comes while each of many waits for its own variant: whoever finds its own gone again goes itself."""
    origin = Origin(max_variants=2)
    origin.says({**FRESH, "vary": "foo", "cache-tag": "t"})
    origin.gate = asyncio.Event()
    calls = [origin.call(headers={"foo": str(value)}) for value in range(12)]
    await settle()
    await origin.cache.invalidate("t")
    origin.gate.set()
    assert {(await call.answer()).status_code for call in calls} == {200}
    assert origin.forwards <= 2 * len(calls)


async def test_a_purge_during_a_validation_beats_the_304() -> None:
    """What a 304 confirmed before the purge is not stored after it."""
    origin = Origin()
    origin.says({"cache-control": "max-age=1", "etag": '"1"', "cache-tag": "t"}, b"old")
    origin.says(FRESH, b"", status=304)
    origin.says({**FRESH, "cache-tag": "t"}, b"new")
    await origin.get()
    origin.clock.tick(5)
    origin.gate = asyncio.Event()
    validating = origin.call()
    await settle()
    await origin.cache.invalidate("t")
    origin.gate.set()
    assert (await validating.answer()).body == b"old"
    assert (await origin.get()).body == b"new"


async def test_switched_off_nothing_is_served_or_stored() -> None:
    """`enabled=False` forwards everything, and purges still go out."""
    origin = Origin()
    origin.says(FRESH)
    await origin.get()
    origin.cache.enabled = False
    answer = await origin.get()
    assert (origin.forwards, answer.cache.detail) == (2, "disabled")
    await origin.get(method="POST")
    origin.cache.enabled = True
    before = origin.forwards
    await origin.get()
    assert origin.forwards == before + 1


async def test_variants_of_one_resource_are_bounded() -> None:
    """An attacker who sends many values of a varying field does not fill the cache with them."""
    origin = Origin(max_variants=4)
    origin.says({**FRESH, "vary": "foo"})
    for value in range(20):
        await origin.get(headers={"foo": str(value)})
    assert origin.cache.statistics().responses <= 5
