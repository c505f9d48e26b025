"""Replicas, Sentinels and a cluster do what they are for."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

import pytest
import redis
import redis.asyncio
from redis import exceptions
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.sentinel import Sentinel

from tests.servers import Cluster, cluster, replicated, sentinels, until


@pytest.fixture(scope="module")
def three() -> Generator[Cluster]:
    """A cluster, which takes two seconds to be complete."""
    with cluster() as made:
        yield made


def test_a_failover_loses_what_was_written_after_the_cut() -> None:
    """The address leads to the new primary, which has the first write and not the second, and another history."""
    with replicated() as pair, redis.Redis.from_url(pair.url) as client:
        client.set("before", 1)
        history = pair.primary.info("replication")["master_replid"]
        pair.cut()
        assert client.set("after", 1)
        pair.promote()
        assert not pair.first.child.alive
        assert until(client.ping, "the new primary")
        assert client.get("before") == b"1"
        assert client.get("after") is None
        assert client.set("new", 1)
        assert pair.primary is pair.second
        info = pair.primary.info("replication")
        assert info["role"] == "master"
        assert info["master_replid"] != history == info["master_replid2"]


def test_a_failover_without_a_cut_loses_nothing() -> None:
    """What the replica had received is there after it was promoted."""
    with replicated() as pair, redis.Redis.from_url(pair.url) as client:
        client.set("before", 1)
        pair.catch_up()
        pair.promote()
        assert client.get("before") == b"1"


def test_in_a_split_brain_both_take_writes_until_one_gives_in() -> None:
    """Each has what the other lacks; the one that follows in the end loses its own."""
    with replicated() as pair, redis.Redis.from_url(pair.url) as client:
        pair.promote(kill=False)
        client.set("new", 1)
        pair.first.execute("SET", "old", 1)
        assert client.get("old") is None
        assert pair.first.execute("GET", "new") is None
        pair.follow()
        assert pair.first.execute("MGET", "old", "new") == [None, "1"]


def test_a_replica_refuses_writes() -> None:
    """It says READONLY, which redis-py raises as `ReadOnlyError`."""
    with replicated() as pair, pytest.raises(exceptions.ReadOnlyError):
        pair.replica.execute("SET", "name", 1)


@pytest.mark.anyio
async def test_sentinels_fail_over_to_the_replica() -> None:
    """A client that asks them finds the new primary once the old one was killed; a restarted Sentinel remembers it."""
    with sentinels() as watched:
        asked = Sentinel(watched.addresses, socket_timeout=0.5)
        client = asked.master_for(watched.name)
        await client.set("name", "value")
        old = watched.primary
        new = await asyncio.to_thread(watched.fail_over)
        assert new is not old
        assert not old.child.alive
        watched.sentinels[0].restart()
        assert watched.primary is new
        await client.connection_pool.disconnect()  # or an old redis-py tries the old connection once more
        assert await client.get("name") == b"value"
        assert vars(client.connection_pool)["master_address"] == ("127.0.0.1", new.port)
        for open_client in [client, *asked.sentinels]:
            await open_client.aclose()


@pytest.mark.anyio
@pytest.mark.parametrize("atomically", [False, True])
async def test_a_slot_moves_with_its_keys_under_load(three: Cluster, *, atomically: bool) -> None:
    """A client that reads and writes all the while meets no error and no missing key."""
    client = RedisCluster.from_url(three.url)
    slot = three.slot_of("{moving}")
    before = three.owner(slot)
    to = three.other_than(before)
    for number in range(50):
        await client.set(f"{{moving}}{number}", number)
    moved = asyncio.create_task(asyncio.to_thread(three.move_slot, slot, to, atomically=atomically))
    rounds = 0
    while not moved.done() or rounds < 2:
        for number in range(50):
            assert int(await client.incr(f"{{moving}}{number}")) == number + rounds + 1
        rounds += 1
    await moved
    assert three.owner(slot) is to
    assert to.execute("CLUSTER", "COUNTKEYSINSLOT", slot) == 50
    assert before.execute("CLUSTER", "COUNTKEYSINSLOT", slot) == 0
    await client.aclose()


def test_a_slot_under_way_is_answered_with_ask_and_then_with_moved(three: Cluster) -> None:
    """The old owner says ASK inside the block and MOVED after it."""
    slot = three.slot_of("{asking}")
    to = three.other_than(three.owner(slot))
    three.owner(slot).execute("SET", "{asking}", "value")
    with three.moving_slot(slot, to) as before, pytest.raises(exceptions.ResponseError) as asked:
        before.execute("GET", "{asking}")
    with pytest.raises(exceptions.ResponseError) as moved:
        before.execute("GET", "{asking}")
    kinds = [f"{type(caught.value).__name__} {caught.value}" for caught in (asked, moved)]
    assert "ask" in kinds[0].lower()
    assert "moved" in kinds[1].lower()
    assert to.execute("GET", "{asking}") == "value"


@pytest.mark.anyio
async def test_a_plain_subscription_hears_the_whole_cluster(three: Cluster) -> None:
    """What is published at one node arrives at a subscriber of another one, a script's messages too."""
    async with redis.asyncio.Redis.from_url(three.nodes[0].url) as client, client.pubsub() as pubsub:
        await pubsub.subscribe("{channel}")
        assert (await pubsub.get_message(timeout=5) or {})["type"] == "subscribe"
        publisher = three.owner(three.slot_of("{channel}"))
        if publisher is three.nodes[0]:
            publisher = three.nodes[1]
            three.move_slot(three.slot_of("{channel}"), publisher)
        publisher.execute("EVAL", "return redis.call('PUBLISH', KEYS[1], 'hello')", 1, "{channel}")
        message = await pubsub.get_message(timeout=5) or {}
        assert (message["type"], message["data"]) == ("message", b"hello")
