"""Purges that are made side by side share lines of the log, and each is still a purge of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastapi_cacheinval import PurgeNotDelivered
from fastapi_cacheinval.bus.redis import RedisLog
from fastapi_cacheinval.errors import LogUnavailable
from fastapi_cacheinval.ports.log import Proposal
from fastapi_cacheinval.testing import assert_hit, assert_miss, capture_invalidations
from tests.helpers.fleet import eventually, fleet
from tests.helpers.trouble import agreed, never_stale, two
from tests.servers import Valkey

pytestmark = pytest.mark.anyio

MANY = 64


def calls(server: Valkey) -> int:
    """How often the log's script ran."""
    stats = server.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha"))


async def test_many_at_once_are_few_exchanges(redis_server: Valkey) -> None:
    """Each has its receipt with its tags, all are counted, and other replicas obey all of them."""
    async with fleet(redis_server.url, 2) as (a, b):
        for number in (*range(4), MANY):
            await b.ask(f"/items/{number}")
        before, applied = calls(redis_server), b.statistics.applied
        with capture_invalidations(a.cache) as heard:
            receipts = await asyncio.gather(*(a.cache.invalidate(f"item:{number}") for number in range(MANY)))
        assert [receipt.tags for receipt in receipts] == [(f"item:{number}",) for number in range(MANY)]
        assert sorted(receipt.tags for receipt in heard) == sorted(receipt.tags for receipt in receipts)
        assert calls(redis_server) - before < MANY // 4
        await eventually(lambda: agreed(a, b), "one place of the log")
        assert b.statistics.applied - applied < MANY // 4
        assert a.statistics.purges["published"] == b.statistics.purges["applied"] == MANY
        for number in range(4):
            assert_miss(await b.ask(f"/items/{number}"))
        assert_hit(await b.ask(f"/items/{MANY}"))


async def test_one_alone_waits_for_nobody(redis_server: Valkey) -> None:
    """One after the other, each is a line of its own."""
    async with fleet(redis_server.url, 1) as (a,):
        receipts = [await a.cache.invalidate(f"item:{number}") for number in range(5)]
        assert [receipt.seq for receipt in receipts] == [1, 2, 3, 4, 5]


async def test_hard_and_soft_ones_share_no_line(redis_server: Valkey) -> None:
    """What was purged softly may still be served stale."""
    async with fleet(redis_server.url, 1) as (a,):
        receipts = await asyncio.gather(
            *(a.cache.invalidate(f"item:{number}", soft=bool(number % 2)) for number in range(20))
        )
        assert [receipt.soft for receipt in receipts] == [bool(number % 2) for number in range(20)]
        assert not {each.seq for each in receipts if each.soft} & {each.seq for each in receipts if not each.soft}
        members = redis_server.execute("ZRANGE", "{cacheinval}:tags", 0, -2)
        assert {member for member in members if member.startswith("s")} == {f"sitem:{n}" for n in range(1, 20, 2)}


async def test_large_ones_share_no_line(redis_server: Valkey) -> None:
    """A line has a thousand tags at most, however many purges wait."""
    async with fleet(redis_server.url, 1) as (a,):
        tags = [tuple(f"t{number}:{each}" for each in range(400)) for number in range(12)]
        receipts = await asyncio.gather(*(a.cache.invalidate(*each) for each in tags))
        assert [receipt.tags for receipt in receipts] == tags
        assert len({receipt.seq for receipt in receipts}) >= 6
        assert redis_server.execute("ZCARD", "{cacheinval}:tags") == 12 * 400 + 1


async def test_all_that_share_a_line_are_queued_where_it_fails(redis_server: Valkey) -> None:
    """Each of them says so, each is fenced, and each is written in the end."""
    async with two(redis_server) as (a, b, proxy):
        await b.ask()
        proxy.black_hole()
        b.data.versions["a"] += 1
        purges = [b.cache.invalidate("item:a" if number == 7 else f"item:{number}") for number in range(10)]
        answers = await asyncio.gather(*purges, return_exceptions=True)
        assert [type(answer) for answer in answers] == [PurgeNotDelivered] * 10
        assert b.statistics.queue_length == 10
        await never_stale([b], 1)
        proxy.heal()
        await eventually(lambda: not b.statistics.queue_length and agreed(a, b), "the queue")
        assert redis_server.execute("ZCARD", "{cacheinval}:tags") == 11
        await never_stale([a, b], 1)


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Until it is set, no exchange that writes the tag `hangs` comes to its end."""
    genuine, free = RedisLog.run, asyncio.Event()

    async def run(self: Any, ask: Any, replica: str, purge: Any = None, **how: Any) -> Any:
        if purge is not None and "hangs" in purge.tags:
            await free.wait()
        return await genuine(self, ask, replica, purge, **how)

    monkeypatch.setattr(RedisLog, "run", run)
    return free


async def test_nobody_waits_long_for_one_that_hangs(redis_server: Valkey, hanging: asyncio.Event) -> None:
    """What is made while an exchange has no answer is sent some milliseconds later."""
    async with fleet(redis_server.url, 1) as (a,):
        first = asyncio.create_task(a.cache.invalidate("hangs"))
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            others = await asyncio.gather(*(a.cache.invalidate(f"item:{number}") for number in range(10)))
        assert not first.done()
        assert {receipt.seq for receipt in others} == {1}
        hanging.set()
        assert (await first).seq == 2


@pytest.mark.parametrize("gone", [0, 1, 5])
async def test_a_caller_that_goes_away_takes_no_other_along(
    redis_server: Valkey, hanging: asyncio.Event, gone: int
) -> None:
    """Neither where it has a line for itself, nor where it shares one: its own purge is made all the same."""
    async with fleet(redis_server.url, 1) as (a,):
        tags = ["hangs", *(f"item:{number}" for number in range(9))]
        tasks = [asyncio.create_task(a.cache.invalidate(tag)) for tag in tags]
        for _ in range(3):
            await asyncio.sleep(0)
        tasks[gone].cancel()
        hanging.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [tag for tag, answer in zip(tags, answers, strict=True) if isinstance(answer, BaseException)] == [
            tags[gone]
        ]
        await eventually(lambda: not a.statistics.queue_length, "the queue")
        assert redis_server.execute("ZCARD", "{cacheinval}:tags") == 11


async def test_who_shares_a_line_is_told_when_the_writing_ends_before_its_first_step(
    redis_server: Valkey, hanging: asyncio.Event
) -> None:
    """A task that is cancelled before it has begun runs no line of its own: the purge fails all the same."""
    async with fleet(redis_server.url, 1) as (a,):
        bus = a.cache._core._shared_bus
        assert bus is not None
        groups = bus._followers[asyncio.get_running_loop()]._groups
        first = asyncio.ensure_future(groups.write(Proposal(("hangs",), soft=False)))
        second = asyncio.ensure_future(groups.write(Proposal(("item:a",), soft=False)))
        await asyncio.sleep(0)
        groups._flush()
        await groups.close()
        with pytest.raises(LogUnavailable):
            await asyncio.wait_for(second, 10)
        hanging.set()
        assert (await first).seq == 1


async def test_a_purge_of_its_own_is_a_heartbeat(redis_server: Valkey) -> None:
    """A replica that writes all the time asks no more than it writes, and its lease is live throughout."""
    async with fleet(redis_server.url, 1, staleness_bound=0.9, redis_timeout=0.5) as (a,):
        await a.in_touch()
        before, seqs, misses = calls(redis_server), 0, 0
        for _ in range(60):
            await a.cache.invalidate("item:a")
            seqs += 1
            misses += not a.live
            await asyncio.sleep(0.03)
        assert misses <= 1
        assert calls(redis_server) - before <= seqs + 2
        writes = calls(redis_server)
        await eventually(lambda: calls(redis_server) >= writes + 2, "heartbeats once it is idle")
        await a.in_touch()
