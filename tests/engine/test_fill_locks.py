"""One forward per key in the cluster, also when the one in front fails, is cancelled, or dies."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest
from fastapi import Response

from fastapi_cacheinval import CachePolicy, cached
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.fleet import PATIENT, Node, eventually, fleet
from tests.helpers.http import Answer, Call
from tests.servers import Valkey

pytestmark = pytest.mark.anyio


def burst(nodes: list[Node], path: str, count: int, **more: Any) -> list[Call]:
    """So many requests at once, spread over the replicas."""
    return [nodes[number % len(nodes)].call(path, **more) for number in range(count)]


async def answered(calls: list[Call]) -> list[Answer]:
    """All answers."""
    return [await call.answer() for call in calls]


def locks(server: Valkey) -> list[str]:
    """The fill locks that are held or marked."""
    return [key for key in server.execute("KEYS", "*") if key.endswith(":f")]


def kinds(nodes: list[Node]) -> Counter[str]:
    """How the requests to all replicas were answered."""
    return Counter(outcome.result.value for node in nodes for outcome in node.heard.outcomes)


async def test_a_cold_burst_over_four_replicas_is_one_forward(redis_server: Valkey) -> None:
    """Two hundred requests for one key: one handler call, one miss; nobody waits longer than the handler takes, nearly."""
    async with fleet(redis_server.url, 4, **PATIENT) as nodes:
        data = nodes[0].data
        data.gate = asyncio.Event()
        calls = burst(nodes, "/items/hot", 200)
        await eventually(lambda: data.forwards == 1, "the leader")
        await eventually(lambda: sum(node.statistics.forwards_under_way for node in nodes) == 4, "a flight on each")
        data.gate.set()
        answers = await answered(calls)
        assert data.forwards == 1
        assert len({answer.body for answer in answers}) == 1
        found = kinds(nodes)
        assert found["miss"] == 1
        assert found["collapsed"] >= 150
        assert found["miss"] + found["collapsed"] + found["hit"] == 200
        await eventually(lambda: not locks(redis_server), "the end of the lock")


async def test_with_a_failing_leader_there_are_two_forwards(redis_server: Valkey) -> None:
    """The first leader answers 500: its own client has that, one more leads, all others have what that one gave."""
    async with fleet(redis_server.url, 4, **PATIENT) as nodes:
        data = nodes[0].data
        data.failures = 1
        data.gate = asyncio.Event()
        calls = burst(nodes, "/items/hot", 200)
        await eventually(lambda: sum(node.statistics.forwards_under_way for node in nodes) == 4, "a flight on each")
        data.gate.set()
        answers = await answered(calls)
        assert data.forwards == 2
        assert Counter(answer.status_code for answer in answers) == {200: 199, 500: 1}


async def test_with_a_cancelled_leader_there_are_two_forwards(redis_server: Valkey) -> None:
    """The first leader's request is cancelled in its handler: one more leads."""
    async with fleet(redis_server.url, 4, **PATIENT) as nodes:
        data = nodes[0].data
        data.gate = asyncio.Event()
        first = nodes[0].call("/items/hot")
        await eventually(lambda: data.forwards == 1, "the leader")
        calls = burst(nodes[1:], "/items/hot", 199)
        await eventually(lambda: sum(node.statistics.forwards_under_way for node in nodes) == 4, "a flight on each")
        first.task.cancel()
        await asyncio.wait((first.task,))
        await eventually(lambda: data.forwards >= 2, "the second leader")
        data.gate.set()
        answers = await answered(calls)
        assert data.forwards == 2
        assert {answer.status_code for answer in answers} == {200}


async def test_after_two_failed_leaders_all_go_at_once(redis_server: Valkey) -> None:
    """A handler that fails every time queues nobody: the time of all is about that of three calls, not of forty."""
    async with fleet(redis_server.url, 4, **PATIENT) as nodes:
        data = nodes[0].data
        data.failures = 40
        data.gate = asyncio.Event()
        calls = burst(nodes, "/items/hot", 40)
        await eventually(lambda: sum(node.statistics.forwards_under_way for node in nodes) == 4, "a flight on each")
        data.gate.set()
        began = time.monotonic()
        answers = await answered(calls)
        assert {answer.status_code for answer in answers} == {500}
        assert data.forwards == 40
        assert time.monotonic() - began < 3


async def test_answers_that_cannot_be_shared_release_all_and_mark_the_key(redis_server: Valkey) -> None:
    """A `Set-Cookie`: everybody's own handler answers, side by side, and for a while nobody asks for the lock at all."""
    calls_of: Counter[int] = Counter()
    gate = asyncio.Event()

    def routes(node: Node) -> None:
        @node.app.get("/own", dependencies=[cached(ttl=60)])
        async def own() -> Response:
            calls_of[node.number] += 1
            await gate.wait()
            return Response(b"mine", headers={"set-cookie": f"a={sum(calls_of.values())}"})

    async with fleet(redis_server.url, 4, **PATIENT, routes=routes) as nodes:
        calls = burst(nodes, "/own", 40)
        await eventually(lambda: sum(node.statistics.forwards_under_way for node in nodes) == 4, "a flight on each")
        await eventually(lambda: calls_of.total() == 1, "the leader")
        gate.set()
        answers = await answered(calls)
        assert calls_of.total() == 40
        assert all("set-cookie" in answer.headers for answer in answers)
        (lock,) = locks(redis_server)
        assert redis_server.execute("GET", lock) == "!"
        assert 0 < redis_server.execute("PTTL", lock) <= 5000
        # A replica that has not asked yet is told by the mark.
        async with fleet(redis_server.url, 1, **PATIENT, routes=routes) as (late,):
            assert_miss(await late.ask("/own"))
            assert redis_server.execute("GET", lock) == "!"
            assert late.cache._core.runtime.flights._marks


async def test_a_hot_key_that_expires_is_refreshed_once_in_the_cluster(redis_server: Valkey) -> None:
    """Stale-while-revalidate on four replicas: each answers stale at once, one handler runs, all have the new response."""
    policy = CachePolicy(ttl=0.3, stale_while_revalidate=60, jitter=0, early_refresh=0)
    async with fleet(redis_server.url, 4, **PATIENT, policy=policy) as nodes:
        data = nodes[0].data
        await nodes[0].ask()
        await nodes[0].written()
        for node in nodes[1:]:
            await node.ask()
        await asyncio.sleep(0.35)  # the lifetime, in real time: the server's clock cannot be ticked
        data.gate = asyncio.Event()
        before = data.forwards
        answers = await answered(burst(nodes, "/items/a", 100))
        assert all(answer.cache is not None and answer.cache.hit for answer in answers)
        await eventually(lambda: data.forwards == before + 1, "the refresh")
        data.versions["a"] = 1
        data.gate.set()

        def refreshed() -> bool:
            return sum(sum(node.statistics.refreshes.values()) for node in nodes) >= 4 and not any(
                node.statistics.refreshing for node in nodes
            )

        await eventually(refreshed, "the end of all refreshes")
        assert data.forwards == before + 1
        assert sum(node.statistics.refreshes.get("stored", 0) for node in nodes) == 1
        assert sum(node.statistics.refreshes.get("found", 0) for node in nodes) == 3


async def test_waiters_are_woken_by_a_message(redis_server: Valkey) -> None:
    """With a clock that stands nobody looks by himself: it is the message that brings the answer."""
    async with fleet(redis_server.url, 2, clocks=True, redis_timeout=0.6) as (a, b):
        a.data.gate = asyncio.Event()
        leading = a.call()
        await eventually(lambda: a.data.forwards == 1, "the leader")
        waiting = b.call()
        await eventually(lambda: redis_server.execute("EXISTS", *waiters(redis_server)) == 1, "the waiter's sign")
        a.data.gate.set()
        answers = await answered([leading, waiting])
        assert answers[0].body == answers[1].body
        assert answers[1].cache is not None
        assert answers[1].cache.collapsed
        assert a.data.forwards == 1


def waiters(server: Valkey) -> list[str]:
    """The signs of who waits for a lock, at least one name."""
    return [key for key in server.execute("KEYS", "*") if key.endswith(":w")] or ["none"]


@pytest.mark.parametrize("lost", ["the subscription", "the sign"])
async def test_waiters_look_by_themselves_when_the_message_is_lost(redis_server: Valkey, lost: str) -> None:
    """Nobody subscribed, or nobody told that somebody waits: the wait ends with a look, a quarter second later at most."""
    async with fleet(redis_server.url, 2) as (a, b):
        a.data.gate = asyncio.Event()
        leading = a.call()
        await eventually(lambda: a.data.forwards == 1, "the leader")
        waiting = b.call()
        await eventually(lambda: redis_server.execute("EXISTS", *waiters(redis_server)) == 1, "the waiter's sign")
        if lost == "the sign":
            redis_server.execute("DEL", *waiters(redis_server))
        else:
            redis_server.execute("ACL", "SETUSER", "default", "-subscribe")
            redis_server.execute("CLIENT", "KILL", "TYPE", "pubsub")
        began = time.monotonic()
        a.data.gate.set()
        answers = await answered([leading, waiting])
        redis_server.execute("ACL", "SETUSER", "default", "+subscribe")
        assert time.monotonic() - began < 1.5
        assert answers[1].cache is not None
        assert answers[1].cache.collapsed
        assert a.data.forwards == 1


async def test_a_purge_in_the_middle_of_a_burst_costs_one_more_forward(redis_server: Valkey) -> None:
    """Whoever waited from before it on another replica does not forward for nothing: one that begins after it serves all."""
    async with fleet(redis_server.url, 4, **PATIENT) as nodes:
        data = nodes[0].data
        data.gate = asyncio.Event()
        calls = burst(nodes, "/items/hot", 40)
        await eventually(lambda: data.forwards == 1, "the leader")
        await eventually(lambda: sum(node.statistics.forwards_under_way for node in nodes) == 4, "a flight on each")
        data.versions["hot"] = 1
        receipt = await nodes[1].cache.invalidate("item:hot")
        await eventually(lambda: all(node.statistics.applied == receipt.seq for node in nodes), "the purge")
        data.gate.set()
        answers = await answered(calls)
        assert data.forwards == 2
        assert sum(b'"version":1' in answer.body for answer in answers) >= 39
        for node in nodes:
            assert_hit(await node.ask("/items/hot"))


async def test_a_waiter_does_not_take_what_was_purged_while_it_waited(redis_server: Valkey) -> None:
    """The result of another replica's forward passes this replica's own check: a purge since then refuses it."""
    async with fleet(redis_server.url, 2) as (a, b):
        a.data.gate = asyncio.Event()
        leading = a.call()
        await eventually(lambda: a.data.forwards == 1, "the leader, which has read")
        waiting = b.call()
        await eventually(lambda: redis_server.execute("EXISTS", *waiters(redis_server)) == 1, "the waiter's sign")
        a.data.versions["a"] = 1
        await b.cache.invalidate("item:a")
        a.data.gate.set()
        answers = await answered([leading, waiting])
        assert b'"version":1' in answers[1].body
        assert a.data.forwards == 2
        for node in (a, b):
            answer = await node.ask()
            assert b'"version":1' in answer.body


async def test_a_waiter_on_a_replica_that_has_not_heard_of_the_purge_takes_nothing_old(redis_server: Valkey) -> None:
    """The leader's replica has heard of the purge: it does not store what it read before, and who waits leads anew."""
    async with fleet(redis_server.url, 2) as (a, b):
        a.data.gate = asyncio.Event()
        leading = a.call()
        await eventually(lambda: a.data.forwards == 1, "the leader, which has read")
        a.data.versions["a"] = 1
        await a.cache.invalidate("item:a")
        waiting = b.call()
        await eventually(lambda: redis_server.execute("EXISTS", *waiters(redis_server)) == 1, "the waiter's sign")
        a.data.gate.set()
        answers = await answered([leading, waiting])
        assert answers[0].cache is not None
        assert answers[0].cache.detail == "superseded"
        assert b'"version":1' in answers[1].body


async def test_a_lock_of_somebody_who_is_gone_holds_nobody_longer_than_the_bound(redis_server: Valkey) -> None:
    """A lock that is not renewed lapses; who waits for it leads then, and the burst costs one more forward."""
    async with fleet(redis_server.url, 2) as (a, b):
        await a.ask()
        await a.written()
        (stored,) = [key for key in redis_server.execute("KEYS", "*") if key.endswith(":r")]
        lock = stored.removesuffix(":r") + ":f"
        await a.cache.clear()
        await eventually(lambda: b.statistics.applied == 1, "the purge")
        redis_server.execute("SET", lock, "somebody who is gone", "PX", 900)
        began = time.monotonic()
        answers = await answered(burst([a, b], "/items/a", 20))
        seconds = time.monotonic() - began
        assert 0.6 < seconds < 4
        assert len({answer.body for answer in answers}) == 1
        assert a.data.forwards == 2


@pytest.mark.parametrize("life", [(), ("PX", 3_600_000)], ids=["for ever", "an hour"])
async def test_a_lock_that_no_replica_can_have_set_holds_nobody(redis_server: Valkey, life: tuple[Any, ...]) -> None:
    """Each replica gives its locks seconds; one without an end would delay each forward of its key."""
    async with fleet(redis_server.url, 1, **PATIENT) as (a,):
        await a.ask()
        await a.written()
        (stored,) = [key for key in redis_server.execute("KEYS", "*") if key.endswith(":r")]
        lock = stored.removesuffix(":r") + ":f"
        await a.cache.clear()
        redis_server.execute("SET", lock, "somebody", *life)
        began = a.cache._core.engine.now()
        await a.ask()
        assert a.data.forwards == 2
        # It would have waited for this long.
        assert a.cache._core.engine.now() - began < a.cache.settings.collapse_timeout
        await a.written()
        assert redis_server.execute("EXISTS", lock) == 0


async def test_a_long_fill_keeps_its_lock(redis_server: Valkey) -> None:
    """The lock is renewed for as long as the handler runs, so that it lasts longer than it was taken for."""
    async with fleet(redis_server.url, 2, staleness_bound=1.5) as (a, b):
        a.data.gate = asyncio.Event()
        began = time.monotonic()
        leading = a.call()
        await eventually(lambda: a.data.forwards == 1, "the leader")
        (lock,) = locks(redis_server)
        owner = redis_server.execute("GET", lock)
        while time.monotonic() < began + 2:
            assert redis_server.execute("GET", lock) == owner
            await asyncio.sleep(0.05)
        waiting = b.call()
        await eventually(lambda: redis_server.execute("EXISTS", *waiters(redis_server)) == 1, "the waiter's sign")
        a.data.gate.set()
        await answered([leading, waiting])
        assert a.data.forwards == 1


async def test_no_wait_is_longer_than_the_collapse_timeout(redis_server: Valkey) -> None:
    """Behind another replica's slow forward a request goes by itself after `collapse_timeout`."""
    async with fleet(redis_server.url, 2, collapse_timeout=0.4) as (a, b):
        a.data.gate = asyncio.Event()
        leading = a.call()
        await eventually(lambda: a.data.forwards == 1, "the leader")
        began = time.monotonic()
        waiting = b.call()
        await eventually(lambda: a.data.forwards == 2, "the waiter's own forward")
        assert 0.3 < time.monotonic() - began < 3
        a.data.gate.set()
        await answered([leading, waiting])


async def test_a_head_and_a_range_are_one_forward_with_the_get(redis_server: Valkey) -> None:
    """Requests of other kinds for the same response share it over replicas."""
    async with fleet(redis_server.url, 3) as nodes:
        data = nodes[0].data
        data.gate = asyncio.Event()
        calls = [
            nodes[0].call(),
            nodes[1].call(method="HEAD"),
            nodes[2].call(headers={"if-none-match": '"x"'}),
        ]
        await eventually(lambda: sum(node.statistics.forwards_under_way for node in nodes) == 3, "a flight on each")
        data.gate.set()
        answers = await answered(calls)
        assert data.forwards == 1
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        assert answers[1].body == b""
        assert_hit(await nodes[1].ask())
