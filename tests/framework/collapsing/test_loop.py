"""The collapsing loop alone: what it returns for each thing that a request can find, wait for, or be told to do."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Any

import pytest

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.cache import internals_of
from fastapi_cacheinval.core.decide import Decision, Forward, Serve, ServeStale
from fastapi_cacheinval.core.outcome import Reason, Result
from fastapi_cacheinval.core.stored import Stamp, StoredResponse
from fastapi_cacheinval.engine.coalescing import Answer, Coalescing, Go, Gone, Missed
from fastapi_cacheinval.engine.runtime import Runtime
from fastapi_cacheinval.testing import FakeClock
from tests.helpers.http import settle, until

pytestmark = pytest.mark.anyio

KEY = b"key"
NOW = FakeClock().now()


STAMP = Stamp(0, 0, 0, NOW)


def stored(left: float = 60.0) -> StoredResponse:
    """A response that is fresh for so many seconds."""
    given: dict[str, Any] = {"headers": (), "body": b"", "etag": None, "last_modified": None, "tags": (), "vary": ()}
    times: dict[str, Any] = {
        "created": NOW,
        "fresh_until": NOW + left,
        "early_refresh_from": NOW + left,
        "fill_seconds": 0.0,
    }
    stale: dict[str, Any] = {"early_refresh": 0.0, "stale_while_revalidate": 0.0, "stale_if_error": 0.0}
    return StoredResponse(
        key=KEY, status=200, **given, stamp=STAMP, **times, **stale, must_revalidate=False, anonymous=False
    )


class Asker:
    """A request by hand: what it finds, what that is good for, and what it may do."""

    l2_key = KEY
    asked_headers = ()
    deadline = NOW + 5.0

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.found: StoredResponse | None = None
        self.good = True
        self.waits = self.covers = True
        self.behind_a_fence = self.purged = False
        self.ordered = 0
        self.is_gone = False
        self.looks = 0

    @property
    def entered(self) -> float:
        return NOW

    def find(self) -> tuple[StoredResponse | None, bytes, bool]:
        return self.found, KEY, False

    def judge(self, stored: StoredResponse | None) -> Decision:
        if stored is None or not self.good:
            return Forward(Reason.URI_MISS if stored is None else Reason.STALE)
        return Serve(stored, refresh=False)

    def may_wait(self, stored: StoredResponse | None) -> bool:
        return self.waits

    def fenced(self) -> bool:
        return self.behind_a_fence

    def overtaken(self) -> bool:
        return self.purged

    def stands_in(self, stored: StoredResponse) -> bool:
        return self.covers

    async def client_left(self) -> bool:
        self.looks += 1
        return self.is_gone

    def order_forward(self, key: bytes) -> bool:
        self.ordered += 1
        return self.runtime.flights.lead(key) is not None


class Play:
    """One request at the loop, beside the flights of a runtime."""

    def __init__(self) -> None:
        clock = FakeClock()
        self.clock = clock
        self.cache = HTTPCache(clock=clock)
        self.runtime = Runtime(clock, Context(), collapse_timeout=5.0, most_refreshes=4, refresh_timeout=30.0)
        self.flights = self.runtime.flights
        self.asker = Asker(self.runtime)
        self.loop = Coalescing(internals_of(self.cache).engine, self.runtime, self.asker)

    def begin(self) -> asyncio.Task[Answer | Go | Gone]:
        """Run the loop for a request that has missed."""
        missed = self.loop.look()
        assert isinstance(missed, Missed)
        return asyncio.get_running_loop().create_task(self.loop.run(missed))

    async def waiting(self) -> tuple[Any, asyncio.Task[Answer | Go | Gone]]:
        """A request that waits for another's flight."""
        flight = self.flights.lead(KEY)
        assert flight is not None
        task = self.begin()
        await until(lambda: flight.waiting == 1)
        return flight, task


async def test_what_is_good_is_an_answer_at_once() -> None:
    """A fresh response is a hit, and one that is past its freshness but wanted is stale."""
    play = Play()
    play.asker.found = stored()
    assert play.loop.look() == Answer(play.asker.found, Result.HIT)
    play.asker.found = stored(-1.0)
    assert play.loop.look() == Answer(play.asker.found, Result.STALE)


async def test_stale_while_revalidate_asks_for_a_refresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may be served stale is an answer that says so."""
    play = Play()
    play.asker.found = stored(-1.0)
    monkeypatch.setattr(play.asker, "judge", ServeStale)
    assert play.loop.look() == Answer(play.asker.found, Result.STALE, refresh=True)


async def test_the_first_leads_and_the_key_is_its_own() -> None:
    """Nobody is under way: the request goes forward as the leader."""
    play = Play()
    going = await play.begin()
    assert isinstance(going, Go)
    assert going.flight is play.flights.under_way(KEY)
    assert (going.stale, going.reason, going.detail, going.hit_for_miss) == (None, Reason.URI_MISS, None, False)


async def test_a_key_that_could_not_be_shared_is_waited_for_by_nobody() -> None:
    """It goes forward alone and is told why; so is a request that may not wait."""
    play = Play()
    play.flights.mark(KEY)
    assert await play.begin() == Go(None, None, Reason.URI_MISS, hit_for_miss=True)
    play.flights.unmark(KEY)
    play.asker.waits = False
    assert await play.begin() == Go(None, None, Reason.URI_MISS)
    assert len(play.flights) == 0


async def test_what_lands_is_collapsed_or_a_hit_of_the_shared_tier() -> None:
    """A waiter is told apart from who is given what L2 had at once."""
    for l2 in (False, True):
        play = Play()
        flight, task = await play.waiting()
        play.asker.found = stored()
        flight.land(play.asker.found, l2=l2)
        expected = Answer(play.asker.found, Result.COLLAPSED, Reason.URI_MISS)
        assert await task == (Answer(play.asker.found, Result.HIT, tier="l2") if l2 else expected)


@pytest.mark.parametrize("end", ["fail", "refuse", "supersede", "pass_on", "time"])
async def test_a_waiter_whose_client_has_left_goes_nowhere(end: str) -> None:
    """However its wait ends; where it was to lead, the next who waits leads, and nobody loses an attempt by it."""
    play = Play()
    flight, task = await play.waiting()
    clock = play.flights.clock
    assert isinstance(clock, FakeClock)
    play.asker.is_gone = True
    going = asyncio.create_task(
        Coalescing(internals_of(play.cache).engine, play.runtime, Asker(play.runtime)).run(
            Missed(None, KEY, Reason.STALE)
        )
    )
    await until(lambda: flight.waiting == 2)
    if end == "time":
        clock.tick(6.0)
    else:
        getattr(flight, end)()
    assert await task == Gone(Reason.URI_MISS)
    found = await going
    assert isinstance(found, Go)
    assert (found.flight is None) == (end in ("refuse", "time"))
    if found.flight is not None:
        found.flight.fail()
    assert play.flights.under_way(KEY) is (flight if end == "time" else None)


async def test_who_has_not_waited_is_not_asked_for() -> None:
    """A request that leads, or goes alone, at once looks at no client."""
    play = Play()
    await play.begin()
    play.asker.waits = False
    await play.begin()
    assert play.asker.looks == 0


async def test_what_lands_for_another_variant_is_looked_past() -> None:
    """A waiter that does not select the result looks again, and leads."""
    play = Play()
    flight, task = await play.waiting()
    flight.land(stored())
    going = await task
    assert isinstance(going, Go)
    assert going.flight is not None
    assert going.flight is not flight


async def test_a_waiter_that_a_purge_has_overtaken_does_not_lead() -> None:
    """It orders one forward in the background and waits for that."""
    play = Play()
    flight, task = await play.waiting()
    play.asker.purged = True
    flight.supersede()
    await settle()
    assert play.asker.ordered == 1
    another = play.flights.under_way(KEY)
    assert another is not None
    play.asker.found = stored()
    another.land(play.asker.found)
    assert await task == Answer(play.asker.found, Result.COLLAPSED, Reason.URI_MISS)


async def test_a_forward_that_was_ordered_and_is_not_for_the_request_is_the_last_that_is_waited_for() -> None:
    """The request goes forward by itself, and so does whoever waits with it."""
    play = Play()
    flight, task = await play.waiting()
    with_it = play.begin()
    await until(lambda: flight.waiting == 2)
    play.asker.purged = True
    flight.supersede()
    await settle()
    another = play.flights.under_way(KEY)
    assert another is not None
    another.land(stored())
    assert await task == Go(None, None, Reason.URI_MISS, hit_for_miss=True)
    assert await with_it == Go(None, None, Reason.URI_MISS, hit_for_miss=True)
    assert play.asker.ordered == 1


async def test_who_waits_goes_by_itself_where_purges_come_faster_than_answers() -> None:
    """After two forwards that purges have overtaken, and half a second: before that, and for one, it waits on."""
    for seconds in (0.1, 0.6):
        play = Play()
        first, task = await play.waiting()
        play.asker.purged = True
        play.clock.tick(seconds)
        first.supersede()
        await settle()
        assert not task.done()
        second = play.flights.under_way(KEY)
        assert second is not None
        second.supersede()
        await settle()
        assert task.done() == (seconds > 0.5)
        if task.done():
            assert await task == Go(None, None, Reason.URI_MISS)
        task.cancel()


async def test_after_two_failures_the_stale_stands_in_or_all_go() -> None:
    """A waiter leads after the first failure; after the second it uses what may stand in, with the status, or goes."""
    for covers in (True, False):
        play = Play()
        old = stored(-1.0)
        play.asker.found, play.asker.good, play.asker.covers = old, False, covers
        flight, leading = await play.waiting()
        flight.fail(503)
        assert await leading == Go(flight, old, Reason.STALE)
        task = play.begin()
        await until(lambda flight=flight: flight.waiting == 1)  # type: ignore[misc]
        flight.fail(502)
        expected = Answer(old, Result.STALE, Reason.STALE, fwd_status=502)
        assert await task == (expected if covers else Go(None, old, Reason.STALE))


@pytest.mark.parametrize("why", ["fenced", "late", "refused"])
async def test_who_may_not_wait_any_longer_goes_alone(why: str) -> None:
    """Behind a fence, past the deadline, and where the result may not be shared."""
    play = Play()
    if why == "refused":
        flight, task = await play.waiting()
        flight.refuse()
    else:
        play.flights.lead(KEY)
        play.asker.behind_a_fence = why == "fenced"
        play.asker.deadline = NOW - 1.0 if why == "late" else NOW + 5.0
        task = play.begin()
    assert await task == Go(None, None, Reason.URI_MISS)


async def test_a_cancelled_waiter_hands_the_lead_on() -> None:
    """Named leader and cancelled at once, it passes the lead to the next."""
    play = Play()
    flight, first = await play.waiting()
    second = play.begin()
    await until(lambda: flight.waiting == 2)
    flight.fail()
    first.cancel()
    assert await second == Go(flight, None, Reason.URI_MISS)
