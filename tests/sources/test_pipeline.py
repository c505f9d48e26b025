"""An event is read, purged, told of, and only then forgotten; whatever fails on the way, it comes again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from fastapi_cacheinval import CacheNotRunning, ConfigurationError, HTTPCache, Receipt
from fastapi_cacheinval.sources import DROP, EVERYTHING, KEEP, Change, Outcome, Source, UnreadableEvent
from fastapi_cacheinval.testing import FakeClock, capture_invalidations
from tests.helpers.fleet import eventually

pytestmark = pytest.mark.anyio


class Queue(Source):
    """A source over a queue of this process that hands out again what is not acknowledged."""

    def __init__(self, cache: HTTPCache, read: Callable[[str], Any], **options: Any) -> None:
        super().__init__(cache, "queue", **options)
        self.read = read
        self.waiting = asyncio.Queue[str]()
        self.outcomes: list[Outcome] = []

    async def serve(self) -> None:
        self.well()
        while True:
            event = await self.waiting.get()
            outcome, _ = await self.handle(event, self.read)
            self.outcomes.append(outcome)
            if not outcome.over:
                await self.rest(0.1)
                self.waiting.put_nowait(event)


def tags(event: str) -> Any:
    """The event is a tag, or one of a few words."""
    if event == "broken":
        raise ValueError(event)
    return {"nothing": None, "everything": EVERYTHING, "soft": Change(("a",), soft=True)}.get(event, [event])


async def outcome_of(event: str, read: Callable[[str], Any] = tags, **options: Any) -> tuple[Outcome, str, Any]:
    """What becomes of one event, why, and what was purged."""
    cache = HTTPCache()
    async with cache:
        with capture_invalidations(cache) as receipts:
            outcome, why = await Queue(cache, read, **options).handle(event, read)
    return outcome, "" if why is None else type(why).__name__, [(each.tags, each.soft) for each in receipts]


@pytest.mark.parametrize(
    ("event", "purged"),
    [("a", [(("a",), False)]), ("nothing", []), ("soft", [(("a",), True)]), ("everything", [((), False)])],
)
async def test_what_is_read_is_purged_and_done(event: str, purged: Any) -> None:
    """Tags, nothing, everything, or a change that says how."""
    assert await outcome_of(event) == (Outcome.DONE, "", purged)


@pytest.mark.parametrize(
    ("answer", "outcome", "purged"),
    [
        (None, Outcome.KEPT, []),
        (KEEP, Outcome.KEPT, []),
        (DROP, Outcome.DROPPED, []),
        (lambda event, error: DROP, Outcome.DROPPED, []),
        (lambda event, error: Change(("wide",), soft=True), Outcome.DROPPED, [(("wide",), True)]),
        (lambda event, error: Change(), Outcome.DROPPED, []),
    ],
)
async def test_what_cannot_be_read_is_kept_unless_somebody_says_otherwise(
    answer: Any, outcome: Outcome, purged: Any
) -> None:
    """By a function, plain or asynchronous, or by one answer for all."""
    assert await outcome_of("broken", on_unreadable=answer) == (outcome, "UnreadableEvent", purged)
    if callable(answer):

        async def asynchronous(event: str, error: Exception) -> Any:
            assert isinstance(error, UnreadableEvent)
            return answer(event, error)

        assert await outcome_of("broken", on_unreadable=asynchronous) == (outcome, "UnreadableEvent", purged)


@pytest.mark.parametrize("answer", [None, True, "drop", ["a"], RuntimeError("the archive is away")])
async def test_a_handler_that_fails_loses_nothing(answer: Any) -> None:
    """What it raises, and an answer that is none, leave the event to come again."""

    def handler(event: str, error: Exception) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    outcome, why, purged = await outcome_of("broken", on_unreadable=handler)
    assert (outcome, outcome.over, why, purged) == (
        Outcome.FAILED,
        False,
        "RuntimeError" if isinstance(answer, Exception) else "TypeError",
        [],
    )


async def test_nobody_is_asked_about_what_waiting_cures() -> None:
    """A function that cannot reach what it looks things up in leaves the event to come again, whatever the handler is."""

    def look_up(event: str) -> list[str]:
        raise ConnectionError("the registry is away")

    assert await outcome_of("a", look_up, on_unreadable=DROP) == (Outcome.FAILED, "ConnectionError", [])


async def test_a_then_that_fails_leaves_the_event() -> None:
    """The purge is made, and is made again when the event comes again; also the one in place of an unreadable event."""

    async def then(receipt: Receipt) -> None:
        raise OSError("the CDN is away")

    assert await outcome_of("a", then=then) == (Outcome.FAILED, "OSError", [(("a",), False)])
    instead = await outcome_of("broken", then=then, on_unreadable=lambda event, error: Change(("wide",)))
    assert instead == (Outcome.FAILED, "OSError", [(("wide",), False)])


async def test_a_cache_that_does_not_run_leaves_the_event() -> None:
    """Nothing is acknowledged for a purge that was not made."""
    source = Queue(HTTPCache(), tags)
    outcome, why = await source.handle("a", tags)
    assert (outcome, type(why)) == (Outcome.FAILED, CacheNotRunning)


async def test_very_many_tags_are_several_purges() -> None:
    """Each is small enough for Redis to be quick with; `then` hears of all."""
    heard: list[Receipt] = []

    async def then(receipt: Receipt) -> None:
        heard.append(receipt)

    many = [str(number) for number in range(2_500)]
    outcome, _, purged = await outcome_of("a", lambda event: many, then=then)
    assert outcome is Outcome.DONE
    assert [len(each) for each, _ in purged] == [len(receipt.tags) for receipt in heard] == [1_000, 1_000, 500]


async def test_a_queue_of_ones_own_loses_nothing() -> None:
    """Events around one that fails are purged; it comes again until it is done."""
    failures = [TimeoutError("slow"), TimeoutError("slow")]

    def read(event: str) -> list[str]:
        if event == "slow" and failures:
            raise failures.pop()
        return [event]

    clock = FakeClock()
    cache = HTTPCache(clock=clock)
    source = Queue(cache, read)
    cache.attach(source)
    async with cache:
        with capture_invalidations(cache) as receipts:
            for event in ("before", "slow", "after"):
                source.waiting.put_nowait(event)
            while len(receipts) < 3:
                await eventually(lambda: clock.waiting or len(receipts) == 3, "the pause")
                clock.tick(0.1)
    assert [receipt.tags for receipt in receipts] == [("before",), ("after",), ("slow",)]
    assert source.outcomes.count(Outcome.FAILED) == 2


async def test_an_attempt_is_repeated_as_long_as_that_is_of_use() -> None:
    """With a pause that doubles; each failure is counted, and the trouble told."""
    clock = FakeClock()
    source = Queue(HTTPCache(clock=clock), tags)
    failures = [OSError("3"), OSError("2"), OSError("1")]

    async def attempt() -> None:
        if failures:
            raise failures.pop()

    task = asyncio.ensure_future(source.repeat(attempt, lambda: True))
    for seconds, left in ((0.1, 2), (0.2, 1), (0.4, 0)):
        await eventually(lambda: len(failures) == left and clock.waiting, "the pause")  # noqa: B023
        assert source.state().trouble == f"OSError: {3 - left}"
        clock.tick(seconds)
    assert await task is True
    assert source.state().failures == 3
    failures.append(OSError("4"))
    assert await source.repeat(attempt, lambda: False) is False


@pytest.mark.parametrize(
    ("options", "told"),
    [({"then": 5}, "then is a function"), ({"on_unreadable": "drop"}, "on_unreadable is a function")],
)
def test_what_cannot_be_called_is_told_when_it_is_made(options: Any, told: str) -> None:
    """Not at the first event."""
    with pytest.raises(ConfigurationError, match=told):
        Queue(HTTPCache(), tags, **options)


@pytest.mark.parametrize("answer", [DROP, KEEP, Change(("wide",))])
async def test_what_can_be_read_of_an_event_is_purged_whatever_becomes_of_the_rest(answer: Any) -> None:
    """A source of one's own says so in its error; it is as soft as the event."""

    def half(event: str) -> None:
        raise UnreadableEvent("the rest is not known", Change(("known",)))

    outcome, why, purged = await outcome_of("x", half, on_unreadable=lambda event, error: answer)
    assert outcome is (Outcome.KEPT if answer is KEEP else Outcome.DROPPED)
    assert why == "UnreadableEvent"
    assert purged == [(("known",), False), *([(("wide",), False)] if isinstance(answer, Change) else [])]
