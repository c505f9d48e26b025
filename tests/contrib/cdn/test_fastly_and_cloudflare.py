"""Purges against servers that answer as Fastly's and Cloudflare's documentation says, limits and errors included."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from fastapi_cacheinval import SourceState
from fastapi_cacheinval.contrib.cdn import CDN, Rate, path_key
from fastapi_cacheinval.sources import KEEP, Unread
from fastapi_cacheinval.testing import FakeClock
from tests.contrib.cdn.fakes import TOKEN, Fake, FakeCloudflare, FakeFastly, Purged, serving
from tests.contrib.cdn.purging import BOTH, cloudflare, confirmed, fastly, purging, state_of, ticking
from tests.helpers.fleet import eventually

pytestmark = pytest.mark.anyio


@BOTH
async def test_what_is_purged_here_is_purged_there(kind: type[Fake], made: Callable[..., CDN]) -> None:
    """Tags and paths of one purge go out in one request, and are counted when they are confirmed."""
    with serving(kind()) as fake:
        async with purging(made(fake)) as (cache, _):
            await cache.invalidate("product:42", "products")
            await confirmed(fake, 2)
            assert fake.purged == [Purged(("product:42", "products"))]
            await cache.invalidate_url("/products/a%20b")
            await confirmed(fake, 4)
            assert set(fake.keys[2:]) == {path_key("/products/a%20b"), path_key("/products/a b")}
            await eventually(lambda: state_of(cache).done == 4, "the count")
            assert state_of(cache) == SourceState(running=True, connected=True, received=4, done=4)


async def test_a_soft_purge_is_soft_where_the_cdn_knows_it() -> None:
    """Fastly is asked for a soft purge; a tag that is purged both ways before it is told is purged hard."""
    with serving(FakeFastly()) as fake:
        async with purging(fastly(fake)) as (cache, _):
            await cache.invalidate("a", soft=True)
            await confirmed(fake, 1)
            fake.faults.append("503")
            await cache.invalidate("b", soft=True)
            await cache.invalidate("c", soft=True)
            await cache.invalidate("b")
            await confirmed(fake, 3)
            assert fake.purged[0] == Purged(("a",), soft=True)
            assert sorted(fake.purged[1:], key=lambda purged: purged.keys) == [
                Purged(("b",)),
                Purged(("c",), soft=True),
            ]


async def test_a_soft_purge_is_hard_where_the_cdn_knows_none() -> None:
    """Cloudflare gives up what is stale elsewhere."""
    with serving(FakeCloudflare()) as fake:
        async with purging(cloudflare(fake)) as (cache, _):
            await cache.invalidate("a", soft=True)
            await confirmed(fake, 1)
            assert fake.purged == [Purged(("a",))]


@BOTH
async def test_everything(kind: type[Fake], made: Callable[..., CDN]) -> None:
    """`clear()` purges all that the CDN has, or what carries `all_tag`, softly where that is asked and known."""
    with serving(kind()) as fake:
        async with purging(made(fake)) as (cache, _):
            await cache.clear()
            await eventually(lambda: fake.purged, "a purge")
            await cache.clear(soft=True)
            await eventually(lambda: len(fake.purged) == 2, "a purge")
            assert fake.purged == [Purged(everything=True)] * 2
        fake.purged.clear()
        async with purging(made(fake, all_tag="shop")) as (cache, _):
            await cache.clear(soft=True)
            await eventually(lambda: fake.purged, "a purge")
            assert fake.purged == [Purged(("shop",), soft=kind is FakeFastly)]


@BOTH
@pytest.mark.parametrize("count", [1, 100, 101, 256, 257, 1_000])
async def test_batches_keep_to_the_limits(kind: type[Fake], made: Callable[..., CDN], count: int) -> None:
    """However many tags are purged at once, no request has more than the CDN takes, and each tag is told once."""
    tags = [f"tag-{number}" for number in range(count)]
    with serving(kind()) as fake:
        async with purging(made(fake)) as (cache, purger):
            await purger.purge(await cache.invalidate(*tags))
            assert set(fake.keys) == set(tags)
            most = 256 if kind is FakeFastly else 100
            assert len(fake.keys) in (count, 2 * count)
            assert all(len(purged.keys) <= most for purged in fake.purged)
            assert state_of(cache).failures == 0


@BOTH
@pytest.mark.parametrize("fault", ["500", "502", "503", "408", "html", "half", "429"])
async def test_a_fault_is_tried_again_until_it_is_over(
    kind: type[Fake], made: Callable[..., CDN], fault: str, caplog: Any
) -> None:
    """Nothing is lost; the trouble is in the state while it lasts, and is logged once."""
    with serving(kind()) as fake:
        fake.faults.extend([fault] * 2)
        async with purging(made(fake)) as (cache, _):
            with caplog.at_level(logging.INFO, "fastapi_cacheinval"):
                await cache.invalidate("a")
                await eventually(lambda: state_of(cache).trouble, "the trouble")
                state = state_of(cache)
                assert (state.connected, state.waiting, state.done) == (False, 1, 0)
                await confirmed(fake, 1)
                await eventually(lambda: state_of(cache).done == 1, "the count")
            state = state_of(cache)
            assert (state.connected, state.waiting, state.failures, state.trouble) == (True, 0, 2, "")
            assert [record.levelname for record in caplog.records if "cdn" in record.message] == ["ERROR", "INFO"]


@BOTH
async def test_a_rate_limit_is_obeyed(kind: type[Fake], made: Callable[..., CDN]) -> None:
    """After a 429 nothing is sent before the time that the CDN has named."""
    with serving(kind()) as fake:
        fake.faults.append("429")
        async with purging(made(fake)) as (cache, _):
            await cache.invalidate("a")
            await eventually(lambda: state_of(cache).failures == 1, "the failure")
            await cache.invalidate("b")
            await confirmed(fake, 2)
            # Fastly names a whole second that may be partly over.
            least = 0.9 if kind is FakeCloudflare else 0.0
            assert fake.times[1] - fake.times[0] >= least
            assert [set(purged.keys) for purged in fake.purged] == [{"a", "b"}]


async def test_what_comes_while_one_is_under_way_goes_together() -> None:
    """Twenty purges of ten tags that wait for the first are one request, with each tag once."""
    with serving(FakeFastly()) as fake:
        fake.faults.append("503")
        async with purging(fastly(fake)) as (cache, _):
            await cache.invalidate("first")
            await eventually(lambda: state_of(cache).failures == 1, "the failure")
            for number in range(20):
                await cache.invalidate(f"tag-{number % 10}")
            await confirmed(fake, 11)
            assert fake.purged == [Purged(("first", *(f"tag-{number}" for number in range(10))))]
            assert len(fake.requests) == 2
            await eventually(lambda: state_of(cache).done == 21, "the count")


async def test_the_rate_is_kept() -> None:
    """With 20 requests a second after 2 at once, requests beyond those come a twentieth of a second apart."""
    with serving(FakeCloudflare()) as fake:
        async with purging(cloudflare(fake, rate=Rate(20, 2), most_tags=1)) as (cache, purger):
            began = time.monotonic()
            await purger.purge(await cache.invalidate(*(f"tag-{number}" for number in range(8))))
            assert time.monotonic() - began >= 6 / 20 * 0.95
            assert len(fake.keys) >= 8


@BOTH
@pytest.mark.parametrize("wrong", ["token", "place"])
async def test_a_wrong_token_or_place_loses_nothing(
    kind: type[Any], made: Callable[..., CDN], wrong: str, caplog: Any
) -> None:
    """The purge is kept, the trouble says what is wrong and never the token, and once that is mended it goes out."""
    with serving(kind()) as fake:
        right = kind.service if kind is FakeFastly else kind.zone
        if wrong == "token":
            fake.token = "another"
        elif kind is FakeFastly:
            fake.service = "another"
        else:
            fake.zone = "another"
        clock = FakeClock()
        async with purging(made(fake), clock=clock) as (cache, _):
            await cache.invalidate("a")
            await eventually(lambda: state_of(cache).trouble, "the trouble")
            state = state_of(cache)
            assert ("token" if wrong == "token" else "404") in state.trouble
            assert (state.waiting, state.refused) == (1, 0)
            fake.token = TOKEN
            fake.service = fake.zone = right
            await ticking(clock, lambda: fake.keys, "the purge")
        assert TOKEN not in caplog.text
        assert TOKEN not in repr(made(fake))


@BOTH
async def test_one_bad_tag_does_not_block_the_others(kind: type[Fake], made: Callable[..., CDN], caplog: Any) -> None:
    """The refused batch is split until the tag is found, which is reported once, kept, and not waited for."""
    reported: list[tuple[str, str]] = []

    async def report(tag: str, error: Exception) -> Unread:
        reported.append((tag, str(error)))
        return KEEP

    tags = [f"tag-{number}" for number in range(50)]
    with serving(kind()) as fake:
        fake.bad = {"tag-17", "tag-18"}
        async with purging(made(fake), on_unreadable=report) as (cache, purger):
            await purger.purge(await cache.invalidate(*tags))
            assert set(fake.keys) == set(tags) - fake.bad
            await eventually(lambda: len(reported) == 2, "the reports")
            assert {tag for tag, _ in reported} == fake.bad
            state = state_of(cache)
            assert state.refused >= 2
            assert state.waiting == 2
            assert len(fake.requests) < 40
            # Once the CDN takes it, the next purge of it brings it there.
            fake.bad = set()
            await cache.invalidate("tag-17")
            await eventually(lambda: "tag-17" in fake.keys, "the tag at the CDN")
            assert len(reported) == 2
            await eventually(lambda: state_of(cache).waiting == 1, "the count")
        assert "tag-17" not in caplog.text


@BOTH
async def test_a_cdn_that_refuses_every_tag_makes_none_a_bad_one(kind: type[Fake], made: Callable[..., CDN]) -> None:
    """As long as it takes nothing, nobody is let go and nothing is reported."""
    reported: list[str] = []

    async def report(tag: str, error: Exception) -> Unread:
        reported.append(tag)
        return KEEP

    with serving(kind()) as fake:
        fake.always = "400"
        async with purging(made(fake), on_unreadable=report) as (cache, _):
            await cache.invalidate("a", "b", "c")
            await eventually(lambda: len(fake.requests) >= 5, "requests")
            assert reported == []
            assert state_of(cache).waiting == 3
            fake.always = ""
            await cache.invalidate("d")
            await confirmed(fake, 4)
            assert set(fake.keys) == {"a", "b", "c", "d"}
            assert reported == []
            await eventually(lambda: state_of(cache).waiting == 0, "the end of the trouble")


async def test_success_is_what_the_body_says() -> None:
    """Cloudflare's 200 without `success` confirms nothing."""
    with serving(FakeCloudflare()) as fake:
        fake.always = "no-success"
        async with purging(cloudflare(fake)) as (cache, _):
            await cache.invalidate("a")
            await eventually(lambda: "1134" in state_of(cache).trouble, "the trouble")
            fake.always = ""
            await cache.invalidate("b")
            await confirmed(fake, 2)


async def test_several_cdns_do_not_wait_for_each_other() -> None:
    """One that is out of order holds up nobody but those who wait for all."""
    with serving(FakeFastly()) as broken, serving(FakeCloudflare()) as fake:
        broken.always = "503"
        async with purging([fastly(broken), cloudflare(fake)]) as (cache, _):
            for number in range(3):
                await cache.invalidate(f"tag-{number}")
                await confirmed(fake, number + 1)
            await eventually(lambda: state_of(cache).done == 3, "the count")
            state = state_of(cache)
            assert (state.received, state.waiting, state.connected) == (6, 3, False)
            assert "Fastly" in state.trouble
            broken.always = ""
            await confirmed(broken, 3)


async def test_tags_that_pile_up_become_everything() -> None:
    """Past `most_keys` nothing more is kept by name, and nothing is lost."""
    with serving(FakeFastly()) as fake:
        fake.faults.append("503")
        async with purging(fastly(fake), most_keys=50) as (cache, _):
            await cache.invalidate("first")
            await eventually(lambda: state_of(cache).failures == 1, "the failure")
            for number in range(60):
                await cache.invalidate(f"tag-{number}")
            await eventually(lambda: state_of(cache).done == 61, "the count")
            assert Purged(everything=True) in fake.purged
            assert state_of(cache).waiting == 0
