"""Purges of very many tags over Redis: one purge in many small lines, which holds up nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import redis

from fastapi_cacheinval import HTTPCache, PurgeNotDelivered
from fastapi_cacheinval.bus.entries import MOST_LINE_BYTES, decode_line
from fastapi_cacheinval.bus.redis import RedisLog
from fastapi_cacheinval.core.pieces import LINE_TAG_BYTES, LINE_TAGS
from fastapi_cacheinval.errors import LogUnavailable
from fastapi_cacheinval.testing import assert_hit, assert_miss, capture_invalidations
from tests.helpers.fleet import SECRET, eventually, fleet
from tests.helpers.pauses import LONGEST, longest_pause
from tests.helpers.trouble import agreed, filled_everywhere, never_stale, two, written
from tests.servers import Valkey

pytestmark = pytest.mark.anyio

MANY = tuple(f"row:{number}" for number in range(97_000))


def lines_of(server: Valkey) -> list[bytes]:
    """What the log in Redis keeps."""
    with redis.Redis(port=server.port) as client:
        entries: Any = client.xrange("{cacheinval}:log")
        return [fields[b"m"] for _, fields in entries]


def tags_in(server: Valkey, *, soft: bool = False) -> set[str]:
    """The tags that the log in Redis remembers as purged."""
    kind = "s" if soft else "h"
    members = server.execute("ZRANGE", "{cacheinval}:tags", 0, -1)
    return {member[1:] for member in members if member.startswith(kind)}


@pytest.mark.parametrize("soft", [False, True])
async def test_one_purge_of_97_000_tags(redis_server: Valkey, soft: bool) -> None:
    """It has one receipt, is counted once everywhere, and takes just what carries its tags."""
    async with fleet(redis_server.url, 2) as (a, b):
        await filled_everywhere(a, b)
        for node in (a, b):
            await node.ask("/items/other")
        with capture_invalidations(a.cache) as receipts:
            receipt = await a.cache.invalidate(*MANY, "item:a", soft=soft, wait="all")
        assert len(receipts) == 1
        assert receipt.tags == receipts[0].tags == (*MANY, "item:a")
        assert (receipt.soft, receipt.everything, receipt.replicas) == (soft, False, 2)
        await eventually(lambda: agreed(a, b), "one place of the log")
        assert a.statistics.applied == receipt.seq
        assert (a.statistics.purges["published"], b.statistics.purges["applied"]) == (1, 1)
        assert (a.statistics.resets, b.statistics.resets) == (1, 1)
        for node in (a, b):
            assert_hit(await node.ask("/items/other"))
        if not soft:
            assert_miss(await b.ask())
        assert tags_in(redis_server, soft=soft) == {*MANY, "item:a"}


async def test_its_lines_are_bounded(redis_server: Valkey) -> None:
    """By tags and by bytes, whatever the tags are; the first ones say that others follow."""
    async with fleet(redis_server.url, 1) as (a,):
        for tags in (MANY, tuple(f"{number:01000}" for number in range(1_000))):
            await a.cache.invalidate(*tags)
            lines = [decode_line(message) for message in lines_of(redis_server)]
            found = [tag for line in lines for tag in line.tags]
            assert tuple(found[-len(tags) :]) == tags
            assert max(len(line.tags) for line in lines) <= LINE_TAGS
            assert [line.purges for line in lines][-2:] == [0, 1]
        assert max(map(len, lines_of(redis_server))) < LINE_TAG_BYTES + 6 * LINE_TAGS < MOST_LINE_BYTES


async def test_a_million_tags_are_everything(redis_server: Valkey) -> None:
    """In one line, and the receipt says so."""
    async with fleet(redis_server.url, 2) as (a, b):
        await filled_everywhere(a, b)
        receipt = await a.cache.invalidate(*map(str, range(1_000_000)), wait="all")
        assert (receipt.everything, receipt.seq) == (True, 1)
        assert_miss(await b.ask())


async def test_others_are_not_held_up(redis_server: Valkey) -> None:
    """The loop of both replicas is free again after 20 ms at most, and mutations meanwhile are done."""
    async with fleet(redis_server.url, 2) as (a, b):
        answers: list[tuple[float, str]] = []
        running = True

        async def mutate() -> None:
            while running:
                began = time.monotonic()
                answer = await a.ask("/items/a", method="PUT")
                answers.append((time.monotonic() - began, answer.headers["cacheinval-purge"]))

        async def purge() -> None:
            await b.cache.invalidate(*MANY, wait="all")

        mutating = asyncio.create_task(mutate())
        pauses = [await longest_pause(purge) for _ in range(3)]
        running = False
        await mutating
        assert min(pauses) < LONGEST
        assert {purge for _, purge in answers} == {"done"}
        assert len(answers) > 20
        assert sorted(seconds for seconds, _ in answers)[len(answers) // 2] < 0.1


async def test_no_call_of_the_script_takes_long(redis_server: Valkey) -> None:
    """Redis serves others in between: a line takes it a millisecond or two."""
    async with fleet(redis_server.url, 2) as (a, b):
        redis_server.execute("CONFIG", "RESETSTAT")
        await a.cache.invalidate(*MANY, wait="all")
        await eventually(lambda: agreed(a, b), "one place of the log")
        assert redis_server.info("commandstats")["cmdstat_evalsha"]["usec_per_call"] < 10_000


async def test_a_purge_that_breaks_off_is_queued_as_a_whole(redis_server: Valkey) -> None:
    """Nothing of it is done, all of it is fenced, and once Redis is back it is one purge with one receipt."""
    async with two(redis_server) as (a, b, proxy):
        await filled_everywhere(a, b)
        heard = 0

        async def cut() -> None:
            nonlocal heard
            await eventually(lambda: a.statistics.applied > 10, "some lines")
            heard = a.statistics.applied
            proxy.black_hole()

        cutting = asyncio.create_task(cut())
        b.data.versions["a"] += 1
        with capture_invalidations(b.cache) as receipts, pytest.raises(PurgeNotDelivered) as raised:
            await b.cache.invalidate(*MANY, "item:a")
        await cutting
        assert raised.value.tags == (*MANY, "item:a")
        assert not receipts
        assert b.statistics.queue_length == 1
        await never_stale([b], 1)
        proxy.heal()
        await eventually(lambda: not b.statistics.queue_length, "a number for the queued purge")
        await eventually(lambda: agreed(a, b), "one place of the log")
        assert tags_in(redis_server) == {*MANY, "item:a"}
        assert 0 < heard < len(MANY) // LINE_TAGS
        await never_stale([a, b], 1)


async def test_a_listener_hears_of_a_queued_purge_once_and_whole(redis_server: Valkey) -> None:
    """With all of its tags, and the number of its last line."""
    async with two(redis_server) as (a, b, proxy):
        proxy.black_hole()
        await b.out_of_touch()
        with capture_invalidations(b.cache) as receipts:
            with pytest.raises(PurgeNotDelivered):
                await b.cache.invalidate(*MANY)
            proxy.heal()
            await eventually(lambda: receipts, "a number for the queued purge")
        assert [(receipt.tags, receipt.everything) for receipt in receipts] == [(MANY, False)]
        assert receipts[0].seq >= len(MANY) // LINE_TAGS
        await eventually(lambda: agreed(a, b), "one place of the log")


async def test_all_lines_stand_in_one_term(redis_server: Valkey) -> None:
    """Where Redis forgets in the midst of it, all of it is written again in the new term."""
    async with fleet(redis_server.url, 2) as (a, b):
        purging = asyncio.create_task(a.cache.invalidate(*MANY))
        await eventually(lambda: b.statistics.applied > 10, "some lines")
        redis_server.execute("FLUSHALL")
        receipt = await purging
        assert (receipt.term, receipt.tags) == (2, MANY)
        assert tags_in(redis_server) == set(MANY)
        await eventually(lambda: agreed(a, b), "one place of the log")


async def test_one_that_cannot_be_written_does_not_keep_others_from_it(
    redis_server: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ails it: what is queued behind it is written, what comes after is done, and it is tried again."""
    genuine = RedisLog.run
    ailing = True

    async def run(self: Any, ask: Any, replica: str, purge: Any = None, **how: Any) -> Any:
        if purge is not None and "row:5000" in purge.tags and ailing:
            raise LogUnavailable("it cannot bear it")
        return await genuine(self, ask, replica, purge, **how)

    async with fleet(redis_server.url, 1) as (a,):
        monkeypatch.setattr(RedisLog, "run", run)
        for tags in (MANY, ("item:a",), ("item:b",)):
            with suppress(PurgeNotDelivered):
                await a.cache.invalidate(*tags)
        await eventually(lambda: a.statistics.queue_length == 1, "all but one written", seconds=10)
        await eventually(lambda: {"item:a", "item:b"} <= tags_in(redis_server), "the small ones")
        await a.in_touch()
        done = 0
        for _ in range(20):
            with suppress(PurgeNotDelivered):
                await a.cache.invalidate("item:c")
                done += 1
            await asyncio.sleep(0.02)
        assert done > 10
        ailing = False
        await eventually(lambda: not a.statistics.queue_length, "the whole queue")
        assert set(MANY) <= tags_in(redis_server)


async def test_a_process_that_has_not_started_makes_one_too(redis_server: Valkey) -> None:
    """A script's purge is one receipt, and the replicas obey it."""
    async with fleet(redis_server.url, 1) as (a,):
        await a.ask()
        receipt = await HTTPCache.from_url(redis_server.url, secret=SECRET).invalidate(*MANY, "item:a")
        assert receipt.tags == (*MANY, "item:a")
        await eventually(lambda: a.statistics.applied == receipt.seq, "the purge")
        assert a.statistics.purges["applied"] == 1
        assert_miss(await a.ask())


async def _passing(server: Valkey, node: Any, megabytes: float) -> None:
    """So much goes through the log."""
    tags = [f"{number:01000}" for number in range(60)]
    for _ in range(int(megabytes * 16)):
        await node.cache.invalidate(*tags)


@pytest.mark.parametrize(("megabytes", "begins_anew"), [(3, False), (100, True)])
async def test_a_replica_that_missed_much_comes_back_soon(
    redis_server: Valkey, megabytes: int, begins_anew: bool
) -> None:
    """It reads page by page, or begins anew where the log has gone on without it; Redis does not have to remember."""
    async with two(redis_server) as (a, b, proxy):
        await filled_everywhere(a, b)
        await b.ask("/items/other")
        resets = b.statistics.resets
        proxy.black_hole()
        await b.out_of_touch()
        await _passing(redis_server, a, megabytes)
        await written(a)
        assert redis_server.execute("MEMORY", "USAGE", "{cacheinval}:log", "SAMPLES", 0) < 12 * 1_048_576
        proxy.heal()
        began = time.monotonic()
        await eventually(lambda: agreed(a, b), "one place of the log")
        assert time.monotonic() - began < 10
        assert (b.statistics.resets > resets) is begins_anew
        await never_stale([a, b], 1)
        await written(b)
        await eventually(lambda: agreed(a, b), "the purge")
        await never_stale([a, b], 2)


async def test_the_loop_is_free_while_much_is_read(redis_server: Valkey) -> None:
    """What was missed, and the messages that pile up, are read and applied in small parts."""
    pauses: list[float] = []
    for _ in range(3):
        async with two(redis_server) as (a, b, proxy):
            proxy.black_hole()
            await b.out_of_touch()
            for first in range(0, 90_000, 1_000):
                await a.cache.invalidate(*(f"t{number}" for number in range(first, first + 1_000)))

            async def healed(heal: Callable[[], None], agree: Callable[[], bool]) -> None:
                heal()
                await eventually(agree, "one place of the log")

            pauses.append(
                await longest_pause(lambda heal=proxy.heal, one=a, other=b: healed(heal, lambda: agreed(one, other)))  # type: ignore[misc]
            )
    assert min(pauses) < LONGEST


async def test_purged_tags_count_in_the_size_of_l1() -> None:
    """What a replica remembers of purges is in `size_bytes`, and how many it remembers follows the size of L1."""
    cache = HTTPCache(l1_max_bytes=1 << 20)
    async with cache:
        before = cache.statistics().size_bytes
        for start in range(0, 4000, 1000):
            await cache.invalidate(*(f"tag:{number}" for number in range(start, start + 1000)))
        grown = cache.statistics().size_bytes - before
        remembered = len(cache._core.engine.replica.cells)
    assert 1_000 < remembered < 4_000
    assert grown == remembered * 242
