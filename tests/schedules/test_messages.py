"""Heartbeats and messages in any order: late, doubled, reordered, lost."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import pytest

from fastapi_cacheinval.core.log_types import Missed
from tests.schedules.cluster import BOUND, NEW, OLD, Cluster

pytestmark = pytest.mark.anyio

Make = Callable[..., Cluster]


def _replies(play: Cluster, name: str) -> list[type]:
    return [type(answer.reply) for answer in play[name].log.answers]


async def test_a_reply_older_than_a_message_undoes_nothing(cluster: Make) -> None:
    """A's heartbeat was answered before B's purge and its reply comes after the message: the purge stands."""
    async with cluster("A", "B") as play:
        await play.read("A")
        play.stage.hold("A.beat.reply")
        play.beats("A")
        await play.settled()
        play.value = NEW
        await play.purges("B")
        await play.settled()
        play.stage.free("A.beat.reply")
        await play.settled()
        assert play["A"].replica.applied == 1
        await play.all_new()


async def test_a_reply_renews_the_lease_from_when_it_was_asked_for(cluster: Make) -> None:
    """It was answered before the purge, whose message is lost: past the bound from its asking A gives nothing away."""
    async with cluster("A", "B") as play:
        await play.read("A")
        play.stage.hold("A.beat.ask", "A.beat.reply", "A.message")
        play.clock.tick(BOUND - 1)
        await play.settled()
        play.stage.open("A.beat.ask")
        await play.settled()
        play.value = NEW
        await play.purges("B")
        await play.settled()
        play.stage.open("A.message", "lost")
        play.clock.tick(BOUND / 2)
        play.stage.open("A.beat.reply")
        await play.settled()
        # It was asked for two thirds of a bound ago at the most, and lives for what is left of one.
        assert play["A"].replica.applied == 0
        assert play["A"].replica.lease_until <= play.clock.now() + BOUND / 2 + 1
        assert (await play.read("A")).how == "hit"
        play.clock.tick(BOUND / 2 + 1)
        past = await play.read("A")
        assert (past.value, past.how) == (NEW, "forwarded")
        play.stage.free_all()
        await play.settled()
        await play.all_new()


async def test_a_reply_with_the_line_and_its_message_apply_it_once(cluster: Make) -> None:
    """The heartbeat tells of the purge first, or the message does: applied once, and counted for what it was."""
    for first, event in (("A.message", "applied"), ("A.beat.reply", "missed")):
        async with cluster("A", "B") as play:
            play.stage.hold("A.message", "A.beat.reply")
            await play.purges("B")
            play.beats("A")
            await play.settled()
            play.stage.open(first)
            await play.settled()
            assert play["A"].replica.applied == 1
            play.stage.free_all()
            await play.settled()
            assert play["A"].cache._core.counters.purges == {event: 1}
            assert _replies(play, "A").count(Missed) == 1
        play.server.client.flushall()


async def test_a_lost_message_is_read_from_the_log_at_the_next_heartbeat(cluster: Make) -> None:
    """Until then A serves within its lease, and from then on it does not."""
    async with cluster("A", "B") as play:
        await play.read("A")
        play.stage.hold("A.message")
        play.value = NEW
        await play.purges("B")
        await play.settled()
        play.stage.open("A.message", "lost")
        await play.settled()
        assert (await play.read("A")).value == OLD
        play.clock.tick(BOUND / 3)
        await play.settled()
        assert play["A"].cache._core.counters.purges == {"missed": 1}
        await play.all_new()


async def test_a_doubled_message_is_applied_once(cluster: Make) -> None:
    """And nothing is given up for it."""
    async with cluster("A", "B") as play:
        play.stage.hold("A.message")
        play.value = NEW
        await play.purges("B")
        await play.settled()
        play.stage.open("A.message", "twice")
        await play.settled()
        assert play["A"].cache._core.counters.purges == {"applied": 1}
        assert play["A"].replica.generation == play["B"].replica.generation
        await play.all_new()


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_messages_in_any_order_leave_the_same_behind(cluster: Make, order: tuple[int, ...]) -> None:
    """Three purges whose messages are reordered: a gap asks the log, and all are applied, each once."""
    async with cluster("A", "B") as play:
        play.stage.hold("A.message")
        for number in range(3):
            await play["B"].cache.invalidate(f"item:{number}")
        await play.settled()
        waiting = sorted(play.stage.parked)
        for number in order:
            play.stage.open(waiting[number])
            await play.settled()
        replica = play["A"].replica
        assert (replica.applied, replica.nonce) == (3, play["B"].replica.nonce)
        assert {tag: cell[0] for tag, cell in replica.cells.items()} == {"item:0": 1, "item:1": 2, "item:2": 3}
        assert sum(play["A"].cache._core.counters.purges.values()) == 3
        assert replica.generation == play["B"].replica.generation


async def test_a_gap_is_asked_for_at_once(cluster: Make) -> None:
    """The second message comes without the first: A asks the log without waiting for its time."""
    async with cluster("A", "B") as play:
        play.stage.hold("A.message")
        await play["B"].cache.invalidate("one")
        await play["B"].cache.invalidate("two")
        await play.settled()
        asked = play.stage.passed["A.beat.ask"]
        play.stage.open("A.message", "lost")
        play.stage.open("A.message'")
        await play.settled()
        assert play["A"].replica.applied == 2
        assert play.stage.passed["A.beat.ask"] == asked + 1
