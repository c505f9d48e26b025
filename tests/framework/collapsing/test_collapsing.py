"""One forward per key at a time, and its limits (RFC 9111 section 4, RFC 9211 `collapsed`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import pytest
from fastapi import Depends, Header, HTTPException, Response

from fastapi_cacheinval import cached
from fastapi_cacheinval.testing import assert_hit, assert_stale
from tests.helpers.http import Answer, Call, Shop, settle, until

pytestmark = pytest.mark.anyio


class Gated(Shop):
    """An app with one cached route whose calls each wait for a gate of their own, then do what they are told."""

    def __init__(self, policy: Any = None, **options: Any) -> None:
        super().__init__(**options)
        self.gates: list[asyncio.Event] = []
        self.then: Callable[[int], Any] = lambda number: number
        self.most_at_once = 0
        self._now = 0

        @self.app.get("/{name}", dependencies=[policy or cached(ttl=60, tags=["it", "n:{name}"])])
        async def read(name: str, accept_language: Annotated[str, Header()] = "") -> Any:
            number = self.count()
            gate = asyncio.Event()
            self.gates.append(gate)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            try:
                await gate.wait()
            finally:
                self._now -= 1
            return self.then(number)

    async def running(self, calls: int) -> None:
        """Wait until the handler has been called so often."""
        await until(lambda: len(self.gates) >= calls, f"{calls} calls, there were {len(self.gates)}")
        await settle()

    def release(self, *numbers: int) -> None:
        """Open the gates of these calls, counted from 1; without any, all."""
        for number in numbers or range(1, len(self.gates) + 1):
            self.gates[number - 1].set()

    async def ending(self, calls: list[Call]) -> list[Answer]:
        """Open every gate as it comes until all calls have ended."""

        def all_done() -> bool:
            self.release()
            return all(call.task.done() for call in calls)

        await until(all_done, "the end of all calls")
        return [await call.answer() for call in calls]


def collapsed(answers: list[Answer]) -> int:
    """How many say that they were answered by another's forward."""
    return sum(answer.cache is not None and answer.cache.collapsed for answer in answers)


async def test_a_hundred_at_once_are_one_forward() -> None:
    """One handler call; the other 99 say collapsed and have the same content."""
    shop = Gated()
    calls = [shop.call("/a") for _ in range(100)]
    await shop.running(1)
    shop.release()
    answers = [await call.answer() for call in calls]
    assert shop.calls == 1
    assert {answer.body for answer in answers} == {b"1"}
    assert collapsed(answers) == 99
    statistics = shop.cache.statistics()
    assert (statistics.misses, statistics.collapsed, statistics.forwards_under_way) == (1, 99, 0)


async def test_other_keys_do_not_wait() -> None:
    """Collapsing is by key: each of three pages has its own forward, at the same time."""
    shop = Gated()
    calls = [shop.call(f"/{name}") for name in "abc" for _ in range(5)]
    await shop.running(3)
    assert shop.most_at_once == 3
    shop.release()
    answers = [await call.answer() for call in calls]
    assert (shop.calls, collapsed(answers)) == (3, 12)


async def test_head_and_get_and_conditional_requests_collapse_together() -> None:
    """Each gets its own form of the one result."""
    shop = Gated()
    get = shop.call("/a")
    await shop.running(1)
    head = shop.call("/a", method="HEAD")
    conditional = shop.call("/a", headers={"if-none-match": "*"})
    ranged = shop.call("/a", headers={"range": "bytes=0-0"})
    await settle()
    shop.release()
    answers = [await call.answer() for call in (get, head, conditional, ranged)]
    assert [answer.status_code for answer in answers] == [200, 200, 304, 200]
    assert [answer.body for answer in answers] == [b"1", b"", b"", b"1"]
    assert shop.calls == 1


# -- leaders that fail --------------------------------------------------------------------------


async def test_when_the_leader_fails_one_more_leads() -> None:
    """Two handler calls for a hundred requests: only the failed leader sees the error."""
    shop = Gated()
    shop.then = lambda number: number if number > 1 else _raise(HTTPException(503))
    calls = [shop.call("/a") for _ in range(100)]
    await shop.running(1)
    shop.release(1)
    await shop.running(2)
    assert shop.most_at_once == 1
    shop.release(2)
    answers = [await call.answer() for call in calls]
    assert [answer.status_code for answer in answers].count(503) == 1
    assert {answer.body for answer in answers if answer.status_code == 200} == {b"2"}
    assert shop.calls == 2


def _raise(error: BaseException) -> NoReturn:
    raise error


async def test_when_the_leader_raises_one_more_leads() -> None:
    """An exception is the leader's client's own; the waiters get the next result."""
    shop = Gated()
    shop.then = lambda number: number if number > 1 else _raise(RuntimeError("first"))
    calls = [shop.call("/a") for _ in range(10)]
    await shop.running(1)
    shop.release(1)
    await shop.running(2)
    shop.release(2)
    with pytest.raises(RuntimeError, match="first"):
        await calls[0].answer()
    assert {(await call.answer()).body for call in calls[1:]} == {b"2"}
    assert shop.calls == 2


async def test_when_the_leader_is_cancelled_the_waiters_still_get_their_answer() -> None:
    """Cancelled in the handler: one of the waiters leads at once."""
    shop = Gated()
    calls = [shop.call("/a") for _ in range(10)]
    await shop.running(1)
    calls[0].task.cancel()
    await shop.running(2)
    shop.release()
    assert {(await call.answer()).body for call in calls[1:]} == {b"2"}
    assert shop.calls == 2


async def test_when_leaders_are_cancelled_before_and_while_they_lead() -> None:
    """Every way to lose a leader leaves no flight behind and no waiter without an answer."""
    shop = Gated()
    calls = [shop.call("/a") for _ in range(6)]
    await shop.running(1)
    calls[1].task.cancel()  # while it waits
    calls[0].task.cancel()  # while it leads
    calls[2].task.cancel()  # in the moment in which it is named
    await shop.running(2)
    answers = await shop.ending(calls[3:])
    assert {answer.status_code for answer in answers} == {200}
    for call in calls[:3]:
        with pytest.raises(asyncio.CancelledError):
            await call.task
    assert shop.calls == 2
    assert shop.cache.statistics().forwards_under_way == 0


@pytest.mark.parametrize("kind", ["status", "exception", "cancelled"])
async def test_when_both_leaders_fail_all_waiters_are_released_at_once(kind: str) -> None:
    """A failing handler is not asked by one after the other: the third attempt of all is side by side."""
    shop = Gated()

    def fail(number: int) -> Any:
        if number > 2:
            return number
        _raise(RuntimeError("down") if kind == "exception" else HTTPException(500))

    shop.then = fail
    calls = [shop.call("/a") for _ in range(20)]
    for number in (1, 2):
        await shop.running(number)
        if kind == "cancelled":
            calls[number - 1].task.cancel()
        else:
            shop.release(number)
    await shop.running(20)
    assert shop.most_at_once == 18
    shop.release()
    bodies = {(await call.answer()).body for call in calls[2:]}
    assert len(bodies) == 18
    for call in calls[:2]:
        await until(call.task.done)
        assert kind == "status" or call.task.cancelled() or call.task.exception() is not None
    assert shop.cache.statistics().forwards_under_way == 0


async def test_an_error_in_a_dependency_after_the_lookup_is_a_failed_leader_too() -> None:
    """A guard that stands after cached() and refuses is an answer like any other: nobody shares it."""
    shop = Shop()
    gate = asyncio.Event()

    async def slow() -> None:
        shop.count()
        await gate.wait()
        raise HTTPException(403)

    @shop.app.get("/", dependencies=[cached(ttl=60), Depends(slow)])
    async def read() -> int:
        return 1

    calls = [shop.call() for _ in range(5)]
    await until(lambda: shop.calls)
    await settle()
    gate.set()
    assert [(await call.answer()).status_code for call in calls] == [403] * 5
    assert shop.calls == 5


# -- answers that may not be shared -------------------------------------------------------------


def _private(number: int) -> Response:
    return Response(str(number), headers={"set-cookie": f"session={number}"})


async def test_an_answer_that_may_not_be_shared_releases_all_at_once() -> None:
    """Set-Cookie: each request gets a cookie of its own, side by side."""
    shop = Gated()
    shop.then = _private
    calls = [shop.call("/a") for _ in range(50)]
    await shop.running(1)
    shop.release(1)
    await shop.running(50)
    shop.release()
    cookies = {(await call.answer()).headers["set-cookie"] for call in calls}
    assert len(cookies) == 50


async def test_for_five_seconds_nobody_waits_for_such_a_key() -> None:
    """Then collapsing is tried again."""
    shop = Gated()
    shop.then = _private
    first = shop.call("/a")
    await shop.running(1)
    shop.release()
    await first.answer()
    shop.clock.tick(4.9)
    calls = [shop.call("/a") for _ in range(10)]
    await shop.running(11)
    assert shop.most_at_once == 10
    shop.release()
    await asyncio.gather(*(call.answer() for call in calls))
    shop.clock.tick(0.2)
    calls = [shop.call("/a") for _ in range(10)]
    await shop.running(12)
    assert len(shop.gates) == 12
    await shop.ending(calls)


async def test_once_it_may_be_shared_the_mark_goes() -> None:
    """A page that is storable again is a hit for all."""
    shop = Gated()
    shop.then = lambda number: _private(number) if number == 1 else number
    for number in (1, 2):
        call = shop.call("/a")
        await shop.running(number)
        shop.release()
        await call.answer()
    assert_hit(await shop.ask("/a"))
    await shop.cache.clear()
    calls = [shop.call("/a") for _ in range(10)]
    await shop.running(3)
    assert len(shop.gates) == 3
    shop.release()
    assert collapsed([await call.answer() for call in calls]) == 9


async def test_marks_do_not_grow_without_bound() -> None:
    """Ten thousand uncacheable URLs are remembered, not more."""
    shop = Shop()
    async with shop.cache:
        flights = shop.cache._core.runtime.flights
        for number in range(12_000):
            flights.mark(b"%d" % number)
        assert len(flights._marks) == 10_000


# -- variants -----------------------------------------------------------------------------------


async def test_other_variants_never_get_a_result_that_is_not_theirs() -> None:
    """Twelve at once in four languages, of which nothing is known yet: each gets its own, in few forwards."""
    shop = Gated()
    languages = ["en", "de", "fr", ""]
    shop.then = lambda number: number
    calls = {
        language: [shop.call("/a", headers={"accept-language": language} if language else None) for _ in range(3)]
        for language in languages
    }
    answers = await shop.ending([call for of_one in calls.values() for call in of_one])
    bodies = [{answer.body for answer in answers[at : at + 3]} for at in range(0, 12, 3)]
    assert [len(each) for each in bodies] == [1, 1, 1, 1]
    assert len(set.union(*bodies)) == 4
    assert shop.calls == 4
    assert collapsed(answers) == 8


async def test_known_variants_are_forwarded_side_by_side() -> None:
    """Once it is known what selects them, one variant does not wait for another."""
    shop = Gated()
    first = shop.call("/a", headers={"accept-language": "en"})
    await shop.running(1)
    shop.release()
    await first.answer()
    calls = [shop.call("/a", headers={"accept-language": language}) for language in ("de", "fr") for _ in range(3)]
    await shop.running(3)
    assert shop.most_at_once == 2
    shop.release()
    assert collapsed([await call.answer() for call in calls]) == 4


# -- purges -------------------------------------------------------------------------------------


async def test_a_waiter_that_came_after_a_purge_takes_nothing_from_before_it() -> None:
    """It waits for the forward, finds it older than the purge, and one that began after it is made."""
    shop = Gated()
    leader = shop.call("/a")
    await shop.running(1)
    early = [shop.call("/a") for _ in range(3)]
    await settle()
    await shop.cache.invalidate("n:a")
    late = [shop.call("/a") for _ in range(3)]
    await settle()
    assert len(shop.gates) == 1
    answers = await shop.ending([leader, *early, *late])
    assert answers[0].body == b"1"
    for answer in answers[4:]:
        assert answer.body != b"1"
    hit = await shop.ask("/a")
    assert_hit(hit)
    assert hit.body != b"1"


async def test_a_purge_while_a_hundred_wait_costs_few_forwards() -> None:
    """They do not lead one after the other: what began after the purge serves them all."""
    shop = Gated()
    calls = [shop.call("/a") for _ in range(100)]
    await shop.running(1)
    await shop.cache.invalidate("it")
    rounds = 0
    while not all(call.task.done() for call in calls):
        rounds += 1
        assert rounds < 20, f"after {shop.calls} forwards {sum(not call.task.done() for call in calls)} still wait"
        shop.release()
        await settle()
    answers = [await call.answer() for call in calls]
    assert [answer.body for answer in answers] == [b"1"] + 99 * [b"2"]
    assert shop.calls == 2
    hit = await shop.ask("/a")
    assert_hit(hit)
    assert hit.body == b"2"


async def test_a_purge_of_another_tag_does_not_disturb() -> None:
    """What does not concern the response lets it be shared."""
    shop = Gated()
    calls = [shop.call("/a") for _ in range(5)]
    await shop.running(1)
    await shop.cache.invalidate("n:b", "other")
    shop.release()
    answers = [await call.answer() for call in calls]
    assert (shop.calls, collapsed(answers)) == (1, 4)


async def test_a_soft_purge_while_they_wait_gives_them_the_stale_result() -> None:
    """It is stored as stale, so that the next request has it refreshed."""
    shop = Gated(cached(ttl=60, stale_while_revalidate=60, tags=["it"]))
    calls = [shop.call("/a") for _ in range(5)]
    await shop.running(1)
    await shop.cache.invalidate("it", soft=True)
    shop.release()
    answers = await shop.ending(calls)
    assert {answer.body for answer in answers} == {b"1"}
    stale = await shop.ask("/a")
    assert_stale(stale)
    await shop.running(2)
    shop.release()
    await shop.refreshed()
    assert (await shop.ask("/a")).body == b"2"


# -- time ---------------------------------------------------------------------------------------


async def test_no_wait_is_longer_than_the_timeout() -> None:
    """After collapse_timeout of the cache's clock the waiters go forward side by side."""
    shop = Gated(collapse_timeout=5)
    calls = [shop.call("/a") for _ in range(10)]
    await shop.running(1)
    shop.clock.tick(4.9)
    await settle()
    assert len(shop.gates) == 1
    shop.clock.tick(0.2)
    await shop.running(10)
    assert shop.most_at_once == 10
    shop.release()
    assert {(await call.answer()).status_code for call in calls} == {200}


async def test_behind_a_leader_that_is_too_slow_nobody_begins_to_wait() -> None:
    """A request that comes later goes forward at once; what is stored first serves the rest."""
    shop = Gated(collapse_timeout=5)
    leader = shop.call("/a")
    await shop.running(1)
    shop.clock.tick(5)
    late = shop.call("/a")
    await shop.running(2)
    shop.release(2)
    assert (await late.answer()).body == b"2"
    assert_hit(await shop.ask("/a"))
    shop.release(1)
    assert (await leader.answer()).body == b"1"


async def test_the_waits_of_one_request_count_together() -> None:
    """Waiting for two leaders one after the other takes no longer than for one."""
    shop = Gated(collapse_timeout=5)
    shop.then = lambda number: _raise(HTTPException(503)) if number == 1 else number
    calls = [shop.call("/a") for _ in range(5)]
    await shop.running(1)
    shop.clock.tick(4)
    shop.release(1)
    await shop.running(2)
    assert len(shop.gates) == 2
    shop.clock.tick(1)
    await settle()
    # Those that wait have waited for five seconds by now, though their second leader only for one.
    late = [shop.call("/a") for _ in range(2)]
    answers = await shop.ending([*calls, *late])
    assert [answer.status_code for answer in answers].count(503) == 1
    assert shop.cache.clock.now() == 1005


async def test_no_alarm_is_left_behind() -> None:
    """Every wait that ended has taken its alarm off the clock."""
    shop = Gated()
    calls = [shop.call("/a") for _ in range(20)]
    await shop.running(1)
    calls[3].task.cancel()
    shop.release()
    for index, call in enumerate(calls):
        if index != 3:
            await call.answer()
    assert shop.clock.waiting == 0


# -- clients ------------------------------------------------------------------------------------


async def test_the_leaders_client_may_be_gone() -> None:
    """It disconnects while the handler runs: the handler goes on, the waiters get the result."""
    shop = Gated()
    calls = [shop.call("/a") for _ in range(5)]
    await shop.running(1)
    calls[0].go_away()
    await settle()
    shop.release()
    assert {(await call.answer()).body for call in calls[1:]} == {b"1"}
    assert shop.calls == 1


async def test_a_waiters_client_may_be_gone() -> None:
    """Nothing is lost for the others."""
    shop = Gated()
    calls = [shop.call("/a") for _ in range(5)]
    await shop.running(1)
    calls[2].task.cancel()
    await settle()
    shop.release()
    assert {(await call.answer()).body for call in [*calls[:2], *calls[3:]]} == {b"1"}
    assert shop.calls == 1


async def test_callers_in_other_partitions_never_collapse() -> None:
    """The key holds the partition: alice's forward is not waited for by bob."""

    def who(x_user: str = Header()) -> str:
        return x_user

    shop = Gated(cached(ttl=60, partition_by=who))
    calls = [shop.call("/a", headers={"x-user": user}) for user in ("alice", "bob", "alice")]
    await shop.running(2)
    shop.release()
    answers = [await call.answer() for call in calls]
    assert answers[0].body == answers[2].body != answers[1].body
    assert shop.calls == 2


async def test_every_request_passes_the_guard_before_it_waits() -> None:
    """A caller whom the guard refuses does not get another's result, though it is under way."""

    def guard(x_user: str = Header()) -> None:
        if x_user != "admin":
            raise HTTPException(403)

    shop = Gated(cached(ttl=60, guarded_by=guard))
    admin = shop.call("/a", headers={"x-user": "admin"})
    await shop.running(1)
    other = shop.call("/a", headers={"x-user": "eve"})
    assert (await other.answer()).status_code == 403
    shop.release()
    assert (await admin.answer()).status_code == 200


async def test_purge_after_purge_while_they_wait_ends_with_the_newest() -> None:
    """Each purge overtakes the forward that runs; those who wait get the first result that none overtook."""
    shop = Gated()
    calls = [shop.call("/a") for _ in range(50)]
    for number in range(1, 6):
        await shop.running(number)
        await shop.cache.invalidate("it")
        shop.release(number)
    await shop.running(6)
    shop.release(6)
    answers = [await call.answer() for call in calls]
    assert answers[0].body == b"1"
    assert {answer.body for answer in answers[1:]} <= {b"2", b"3", b"4", b"5", b"6"}
    assert sum(answer.body == b"6" for answer in answers) >= 45
    assert shop.cache.statistics().forwards_under_way == 0


@pytest.mark.parametrize("error", [HTTPException(503), RuntimeError("down")])
async def test_after_a_purge_a_failing_forward_holds_nobody_up(error: Exception) -> None:
    """The forward that is made for those who wait fails: they go on by themselves and all are answered."""
    shop = Gated()
    shop.then = lambda number: _raise(error) if number == 2 else number
    calls = [shop.call("/a") for _ in range(10)]
    await shop.running(1)
    await shop.cache.invalidate("it")
    shop.release(1)
    await shop.running(2)
    shop.release(2)
    answers = await shop.ending(calls)
    assert {answer.status_code for answer in answers} == {200}
    assert shop.cache.statistics().forwards_under_way == 0
