"""A purger's start and stop, what is purged when it does not run, and what it is made with."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from datetime import timedelta
from typing import Any

import pytest

from fastapi_cacheinval import CacheNotRunning, ConfigurationError, HTTPCache
from fastapi_cacheinval.contrib.cdn import CDN, CDNPurger, Fastly, Purge, PurgeRequest, Rate
from fastapi_cacheinval.sources import DROP, KEEP, Change
from fastapi_cacheinval.testing import FakeClock
from tests.contrib.cdn.fakes import FakeFastly, Purged, serving
from tests.contrib.cdn.purging import FAST, fastly, purging, state_of, ticking
from tests.helpers.fleet import eventually
from tests.helpers.forks import in_child
from tests.helpers.http import settle
from tests.helpers.telemetry import Recorded
from tests.servers import Valkey

pytestmark = pytest.mark.anyio


def errors(caplog: Any) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_stop_tells_what_is_queued(caplog: Any) -> None:
    """Purged and stopped at once: the CDN has it, twice, and nothing is logged as an error."""
    with serving(FakeFastly()) as fake:
        async with purging(fastly(fake), again_after=None, bound=1.0) as (cache, _):
            await cache.invalidate("a", "b")
        assert fake.purged == [Purged(("a", "b"))] * 2
        assert errors(caplog) == []


async def test_what_is_due_again_keeps_its_time_at_a_stop() -> None:
    """As far as the last while reaches, the second purge is not made before it can help."""
    with serving(FakeFastly()) as fake:
        async with purging(fastly(fake), again_after=0.5, bound=2.0) as (cache, purger):
            await purger.purge(await cache.invalidate("a"))
        assert len(fake.purged) == 2
        assert fake.times[1] - fake.times[0] >= 0.45


async def test_a_stop_does_not_wait_where_nothing_is_queued() -> None:
    """Nothing purged: it ends at once."""
    with serving(FakeFastly()) as fake:
        async with purging(fastly(fake), again_after=None, bound=60.0):
            began = time.monotonic()
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("fault", ["hang", "503"])
async def test_what_cannot_be_told_at_a_stop_is_an_error_with_its_count(fault: str, caplog: Any) -> None:
    """The last while is the staleness bound; then the number of what is lost is logged."""
    with serving(FakeFastly()) as fake:
        fake.always = fault
        async with purging(fastly(fake), bound=0.8) as (cache, _):
            await cache.invalidate("a", "b", "c")
            await eventually(lambda: fake.requests, "a request")
            began = time.monotonic()
        assert 0.7 <= time.monotonic() - began < 5
        assert "cdn stopped with 3 purge(s) of tags that the CDN has not confirmed" in errors(caplog)


async def test_a_cdn_that_comes_back_in_the_last_while_is_told() -> None:
    """Pauses that may be longer than the last while are cut short."""
    with serving(FakeFastly()) as fake:
        clock = FakeClock()
        fake.faults.extend(["401"] * 3)
        async with purging(fastly(fake), bound=3.0) as (cache, _):
            await cache.invalidate("a")
            await eventually(lambda: state_of(cache).failures == 1, "the failure")
        assert fake.purged == [Purged(("a",))]
        assert clock.now() == 1_000


async def test_what_is_purged_after_it_was_left_is_told_at_once() -> None:
    """One attempt, which is over when the listener returns."""
    with serving(FakeFastly()) as fake:
        async with purging(fastly(fake)) as (cache, _):
            pass
        await cache.invalidate("late")
        assert fake.purged == [Purged(("late",))]


async def test_what_is_purged_in_a_fork_is_told_at_once_there(redis_server: Valkey) -> None:
    """The purger runs in the parent, which does not tell what others purge: the child does, and the parent goes on."""
    with serving(FakeFastly()) as fake:
        async with purging(fastly(fake), server=redis_server) as (cache, purger):
            await asyncio.to_thread(in_child, lambda: cache.invalidate_sync("forked"))
            assert fake.purged == [Purged(("forked",))]
            await purger.purge(await cache.invalidate("a"))
            assert fake.purged[1:] == [Purged(("a",))]


@pytest.mark.parametrize("fault", ["hang", "503"])
async def test_what_cannot_be_told_at_once_is_an_error(fault: str, caplog: Any) -> None:
    """It is not silently lost."""
    with serving(FakeFastly()) as fake:
        async with purging(fastly(fake), bound=0.5) as (cache, _):
            pass
        fake.always = fault
        await cache.invalidate("late")
        assert errors(caplog) == ["cdn does not run here: 1 purge request(s) were not confirmed by the CDN"]


async def test_who_waits_for_a_purge_is_told_that_it_stops() -> None:
    """A source's event is not forgotten: `purge` raises instead of returning."""
    with serving(FakeFastly()) as fake:
        fake.always = "503"
        async with purging(fastly(fake), bound=0.3) as (cache, purger):
            waiting = asyncio.create_task(purger.purge(await cache.invalidate("a")))
            await eventually(lambda: fake.requests, "a request")
        with pytest.raises(CacheNotRunning, match="stopped before"):
            await waiting
        with pytest.raises(CacheNotRunning, match="attach it"):
            await purger.purge(await cache.invalidate("b"))


async def test_a_caller_that_gives_up_takes_nothing_back() -> None:
    """Who waits may be cancelled; the CDN is told all the same."""
    with serving(FakeFastly()) as fake:
        clock = FakeClock()
        fake.faults.append("503")
        async with purging(fastly(fake), clock=clock) as (cache, purger):
            waiting = asyncio.create_task(purger.purge(await cache.invalidate("a")))
            await eventually(lambda: state_of(cache).failures == 1, "the failure")
            waiting.cancel()
            await settle()
            clock.tick(30)
            await eventually(lambda: fake.purged == [Purged(("a",))], "the purge")
            await eventually(lambda: state_of(cache).waiting == 0, "the count")


async def test_purges_in_two_loops_one_after_the_other() -> None:
    """A cache that is started again enters it again."""
    with serving(FakeFastly()) as fake:
        cache = HTTPCache()
        cache.attach(CDNPurger(cache, fastly(fake), again_after=0))

        async def once(tag: str) -> None:
            async with cache:
                await cache.invalidate(tag)

        await asyncio.to_thread(asyncio.run, once("first"))
        await asyncio.to_thread(asyncio.run, once("second"))
        assert fake.keys == ["first", "second"]


async def test_a_purge_from_a_thread_is_told() -> None:
    """`invalidate_sync` in a plain function."""
    with serving(FakeFastly()) as fake:
        async with purging(fastly(fake)) as (cache, _):
            await asyncio.to_thread(cache.invalidate_sync, "a")
            await eventually(lambda: fake.purged == [Purged(("a",))], "the purge")


async def test_it_runs_alone_as_a_worker() -> None:
    """`await purger.run()`: the cache is started for it, and what other code there purges goes to the CDN."""
    with serving(FakeFastly()) as fake:
        cache = HTTPCache()
        purger = CDNPurger(cache, fastly(fake), again_after=0)
        work = asyncio.create_task(purger.run())
        await eventually(lambda: purger.state().running, "its start")
        await cache.invalidate("a")
        await eventually(lambda: fake.purged, "the purge")
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert not purger.state().running


class Broken:
    """An adapter with mistakes."""

    def __init__(self, inner: CDN, mistake: str) -> None:
        self._inner = inner
        self.mistake = mistake
        self.rate = FAST

    def key(self, tag: str) -> str:
        return tag

    def requests(self, purge: Purge) -> Any:
        if self.mistake == "raises":
            raise KeyError("a tag")
        if self.mistake == "forgets":
            return self._inner.requests(Purge(purge.tags[1:], purge.soft))
        return self._inner.requests(purge)

    def judge(self, request: PurgeRequest, answer: Any) -> Any:
        if self.mistake == "judges":
            raise ValueError("no")
        return self._inner.judge(request, answer)


@pytest.mark.parametrize("mistake", ["raises", "forgets", "judges"])
async def test_an_adapters_own_mistake_loses_nothing(mistake: str) -> None:
    """It is seen in the state, and once it is mended everything is told."""
    with serving(FakeFastly()) as fake:
        clock = FakeClock()
        broken = Broken(fastly(fake), mistake)
        async with purging(broken, clock=clock) as (cache, _):
            await cache.invalidate("a", "b")
            await eventually(lambda: state_of(cache).trouble, "the trouble")
            assert "a" not in fake.keys or mistake == "judges"
            broken.mistake = ""
            clock.tick(60)
            await eventually(lambda: {"a", "b"} <= set(fake.keys), "the purge")
            await eventually(lambda: state_of(cache).waiting == 0, "the count")


@pytest.mark.parametrize("mistake", ["raises", "answers"])
async def test_a_handler_for_bad_tags_that_fails_is_asked_again(caplog: Any, mistake: str) -> None:
    """It is logged and counted, and changes nothing else; the tag is reported anew when it is refused again."""
    clock = FakeClock()
    asked: list[str] = []

    async def fail(tag: str, error: Exception) -> Any:
        asked.append(tag)
        if len(asked) > 1:
            return KEEP
        if mistake == "raises":
            raise RuntimeError("no")
        return None

    with serving(FakeFastly()) as fake:
        fake.bad = {"b"}
        async with purging(fastly(fake), on_unreadable=fail, clock=clock) as (cache, purger):
            await purger.purge(await cache.invalidate("a", "b"))
            await eventually(lambda: "cdn: on_unreadable failed" in errors(caplog), "the log")
            assert state_of(cache).failures
            await purger.purge(await cache.invalidate("c"))
            assert "on_unreadable" in state_of(cache).trouble
            await ticking(clock, lambda: len(asked) == 2, "the second report")
            await eventually(lambda: "on_unreadable" not in state_of(cache).trouble, "the end of the trouble")
    assert asked == ["b", "b"]


@pytest.mark.parametrize("answer", [DROP, Change(("instead",))])
async def test_a_handler_for_bad_tags_may_give_one_up(answer: Any) -> None:
    """A tag that is dropped is not tried again; what is named in its place is purged."""
    with serving(FakeFastly()) as fake:
        fake.bad = {"b"}
        async with purging(fastly(fake), on_unreadable=lambda tag, error: answer) as (cache, purger):
            await purger.purge(await cache.invalidate("a", "b"))
            await eventually(lambda: state_of(cache).waiting == 0, "the count")
            assert state_of(cache).refused
            await eventually(lambda: answer is DROP or "instead" in fake.keys, "the other tag")


async def test_the_old_name_of_the_handler_works_and_says_so() -> None:
    """`on_poison` of 0.1 is awaited with the tag and the reason, and decides nothing."""
    reported: list[tuple[str, str]] = []

    async def report(tag: str, reason: str) -> None:
        reported.append((tag, reason))

    with serving(FakeFastly()) as fake:
        fake.bad = {"b"}
        cache = HTTPCache()
        with pytest.warns(DeprecationWarning, match="on_poison is on_unreadable now"):
            purger = CDNPurger(cache, fastly(fake), on_poison=report)
        cache.attach(purger)
        async with cache:
            await purger.purge(await cache.invalidate("a", "b"))
            await eventually(lambda: reported, "the report")
            assert state_of(cache).waiting == 1
    assert [tag for tag, _ in reported] == ["b"]
    assert reported[0][1]


@pytest.mark.parametrize(
    "options",
    [
        {"again_after": -1},
        {"again_after": float("inf")},
        {"again_after": timedelta(seconds=-1)},
        {"most_keys": 0},
        {"timeout": 0},
        {"verify": False},
        {"proxy": "somewhere"},
        {"cdn": []},
        {"cdn": ["fastly"]},
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_when_it_is_made(options: dict[str, Any]) -> None:
    """Nothing waits for the night."""
    given: dict[str, Any] = {"cdn": Fastly("abc", "t"), **options}
    with pytest.raises(ConfigurationError):
        CDNPurger(HTTPCache(), **given)


def test_a_context_and_a_timedelta_are_taken() -> None:
    """The forms that the documentation names."""
    CDNPurger(HTTPCache(), [Fastly("abc", "t")], again_after=timedelta(seconds=1), verify=ssl.create_default_context())


def test_a_rate_is_positive() -> None:
    """No rate of nothing."""
    for bad in ({"per_second": 0}, {"per_second": -1}, {"per_second": 1, "burst": 0}, {"per_second": float("nan")}):
        with pytest.raises(ConfigurationError):
            Rate(**bad)  # type: ignore[arg-type]


async def test_each_request_is_a_span_without_names_in_it() -> None:
    """How many tags, and what the CDN answered; no tag, no URL, no token."""
    recorded = Recorded()
    with serving(FakeFastly()) as fake:
        cache = HTTPCache(**recorded.providers)
        cache.attach(CDNPurger(cache, fastly(fake), again_after=0))
        async with cache:
            await cache.invalidate("product:42", "products")
            await eventually(lambda: recorded.spans("cacheinval.cdn.purge"), "the span")
        span = recorded.one("cacheinval.cdn.purge")
        assert dict(span.attributes or {}) == {"cacheinval.cdn.tags": 2, "http.response.status_code": 200}
