"""`wait="all"` without a look at the log: the last replica that applies the line tells who waits."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.bus.call import Call, log_keys
from fastapi_cacheinval.bus.script import LUA
from fastapi_cacheinval.core.log_types import LogEntry
from tests.engine.looks import Looks
from tests.helpers.fleet import PATIENT, SECRET, eventually, fleet, of_age
from tests.servers import Valkey

pytestmark = pytest.mark.anyio

KEYS = log_keys("cacheinval")
# Heartbeats are 20 s apart: no regular one is waited for.
CALM: dict[str, Any] = {"staleness_bound": 60.0, "redis_timeout": 10.0}


@pytest.fixture
def looked(looks: Looks) -> list[LogEntry]:
    """The lines for which somebody looked at the log, though the word had as long as it takes on a busy machine."""
    looks.begin_after(10.0)
    return looks.lines


async def test_who_serves_is_told_and_need_not_look(redis_server: Valkey, looked: list[LogEntry]) -> None:
    """Each of four replicas in turn purges, and all have applied it when it returns."""
    async with fleet(redis_server.url, 4, **CALM) as nodes:
        of_age(redis_server)
        for number in range(1, 9):
            receipt = await nodes[number % 4].cache.invalidate("item:a", wait="all")
            assert {node.statistics.applied for node in nodes} == {number}
            assert receipt.replicas == 4
    assert looked == []


async def test_who_only_publishes_is_told_too(redis_server: Valkey, looked: list[LogEntry]) -> None:
    """It listens for the word from its first such purge on, and to nothing else."""
    async with fleet(redis_server.url, 2, **CALM) as nodes:
        of_age(redis_server)
        script = HTTPCache.from_url(redis_server.url, secret=SECRET, **CALM)
        async with script:
            await script.invalidate("item:a")
            assert redis_server.execute("PUBSUB", "NUMSUB", KEYS.channel)[1] == 2
            for number in range(2, 6):
                assert (await script.invalidate("item:a", wait="all")).replicas == 2
                assert {node.statistics.applied for node in nodes} == {number}
            assert redis_server.execute("PUBSUB", "NUMSUB", KEYS.channel)[1] == 2
    assert looked == []


async def test_who_publishes_beside_a_replica_of_its_own_process_is_told_too(
    redis_server: Valkey, looked: list[LogEntry]
) -> None:
    """The process's own replica is one of those that its other loop waits for, and says so at once."""
    async with fleet(redis_server.url, 2, **CALM) as (a, b):
        of_age(redis_server)

        async def beside() -> list[int | None]:
            async with a.cache:
                return [(await a.cache.invalidate("item:a", wait="all")).replicas for _ in range(3)]

        assert await asyncio.to_thread(asyncio.run, beside()) == [2, 2, 2]
        assert a.statistics.applied == b.statistics.applied == 3
    assert looked == []


async def test_many_that_wait_at_once_are_told_each(redis_server: Valkey, looked: list[LogEntry]) -> None:
    """Those that share a line, those in lines of their own, and those of another replica."""
    async with fleet(redis_server.url, 3, **PATIENT) as nodes:
        of_age(redis_server)
        receipts = await asyncio.gather(
            *(nodes[number % 3].cache.invalidate(f"item:{number}", wait="all") for number in range(60))
        )
        assert {receipt.replicas for receipt in receipts} == {3}
        assert {node.statistics.applied for node in nodes} == {max(receipt.seq for receipt in receipts)}
    assert looked == []


async def test_alone_nobody_is_waited_for(redis_server: Valkey, looked: list[LogEntry]) -> None:
    """The only replica knows from the reply that there is no other."""
    async with fleet(redis_server.url, 1, **CALM) as (alone,):
        of_age(redis_server)
        assert (await alone.cache.invalidate("item:a", wait="all")).replicas == 1
    assert looked == []


async def test_a_line_that_was_missed_is_told_of_when_it_is_read(redis_server: Valkey) -> None:
    """The subscriptions are gone when the message comes; the line comes with the reply to the question after that."""
    async with fleet(redis_server.url, 3, **CALM) as nodes:
        of_age(redis_server)
        began = time.monotonic()
        for number in range(1, 4):
            redis_server.execute("CLIENT", "KILL", "TYPE", "pubsub")
            receipt = await nodes[0].cache.invalidate("item:a", wait="all")
            assert {node.statistics.applied for node in nodes} == {number}
            assert receipt.replicas == 3
        assert time.monotonic() - began < 15


async def test_a_release_that_does_not_tell_is_waited_for_all_the_same(redis_server: Valkey) -> None:
    """A lease in the log whose holder says nothing of the line: the purge is done when a heartbeat has said it."""
    async with fleet(redis_server.url, 2, **CALM) as nodes:
        of_age(redis_server)

        def beat(seq: int) -> None:
            state: Any = redis_server.client.hgetall(KEYS.state.decode())
            nonce = state["nonce"] if seq else state["tnonce"]
            call = Call(
                replica="old",
                term=int(state["term"]),
                term_nonce=state["tnonce"],
                seq=seq,
                nonce=nonce,
                fresh="fresh",
                bound=60.0,
                channel=KEYS.channel,
            )
            redis_server.client.eval(LUA, 4, *KEYS[:4], *call.arguments())

        beat(0)
        waiting = asyncio.create_task(nodes[0].cache.invalidate("item:a", wait="all"))
        await eventually(lambda: {node.statistics.applied for node in nodes} == {1}, "the purge")
        assert not waiting.done()
        beat(1)
        receipt = await asyncio.wait_for(waiting, 15)
        assert receipt.replicas == 3


async def test_who_only_publishes_and_may_not_listen_looks(redis_server: Valkey) -> None:
    """Its first such purge is not held up by the subscription that it cannot have, and none after it."""
    url = redis_server.add_user("deaf", "any", "~*", "&*", "+@all", "-subscribe")
    async with fleet(redis_server.url, 2, **CALM):
        of_age(redis_server)
        async with HTTPCache.from_url(url, secret=SECRET, **CALM) as script:
            began = time.monotonic()
            for _ in range(3):
                assert (await script.invalidate("item:a", wait="all")).replicas == 2
            assert time.monotonic() - began < 15


@pytest.mark.parametrize("missing", ["-sadd", "-srem"])
async def test_without_the_right_to_keep_the_sets_the_log_is_looked_at(redis_server: Valkey, missing: str) -> None:
    """A user as earlier releases asked for: it takes a little longer, and no heartbeat is waited for."""
    url = redis_server.add_user("limited", "any", "~*", "&*", "+@all", missing)
    async with fleet(url, 3, **CALM) as nodes:
        of_age(redis_server)
        began = time.monotonic()
        receipt = await nodes[0].cache.invalidate("item:a", wait="all")
        assert receipt.replicas == 3
        assert {node.statistics.applied for node in nodes} == {1}
        assert time.monotonic() - began < 15


async def test_what_is_kept_for_it_has_an_end(redis_server: Valkey) -> None:
    """Who is to tell and does not is forgotten after four bounds, without anybody's doing."""
    async with fleet(redis_server.url, 1, **CALM) as (a,):
        of_age(redis_server)
        redis_server.execute("HSET", KEYS.acks, "silent", f"0 {int(time.time() * 1e6)} 60000000")
        waiting = asyncio.create_task(a.cache.invalidate("item:a", wait="all"))
        await eventually(lambda: redis_server.execute("KEYS", "*:applied:*"), "the set")
        (name,) = redis_server.execute("KEYS", "*:applied:*")
        assert redis_server.execute("SMEMBERS", name) == {"silent"}
        assert 0 < redis_server.execute("PTTL", name) <= 240_000
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
