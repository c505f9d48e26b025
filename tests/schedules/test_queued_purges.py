"""Purges that have no number yet: fenced on their own replica, until they are written."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fastapi_cacheinval.errors import LogUnavailable, PurgeNotDelivered
from tests.helpers.mutations import Answer, Call
from tests.schedules.cluster import NEW, Cluster

pytestmark = pytest.mark.anyio

Make = Callable[..., Cluster]

_AWAY = LogUnavailable("it is gone")


def _said(call: Call) -> tuple[int, str | None]:
    answer = Answer(call.messages)
    return answer.status_code, answer.purge


async def test_a_queued_purge_is_fenced_until_it_has_its_number(cluster: Make) -> None:
    """The script call fails: L2 and everything older is refused on B; then it is written, and the fence is lifted."""
    async with cluster("A", "B") as play:
        await play.read("A")
        await play.read("B")
        play.stage.hold("B.purge.ask", "B.beat.ask")
        call = play.mutates("M", "B")
        await play.settled()
        play.stage.open("B.purge.ask", _AWAY)
        await play.settled()
        assert _said(call) == (200, "queued")
        assert play["B"].replica.fenced([play.tag])
        assert play["B"].cache.statistics().queue_length == 1
        # Nobody could know of it elsewhere: A stays within its lease.
        assert (await play.read("A")).how == "hit"
        read = play.stage.passed["probe.read.ask"]
        first = await play.read("B")
        assert (first.value, first.how) == (NEW, "forwarded")
        assert (await play.read("B")).how == "hit"
        assert play.stage.passed["probe.read.ask"] == read
        play.stage.free("B.beat.ask", "B.purge.ask")
        play.clock.tick(1)
        await play.settled()
        assert not play["B"].replica.fenced([play.tag])
        assert play["B"].cache.statistics().queue_length == 0
        assert play["A"].replica.applied == 1
        await play.all_new()


async def test_a_purge_whose_reply_is_lost_is_written_once_more(cluster: Make) -> None:
    """Whether it was written cannot be known: it is queued and fenced, and a second line does no harm."""
    async with cluster("A", "B") as play:
        await play.read("B")
        play.stage.hold("B.purge.reply", "B.message")
        call = play.mutates("M", "B")
        await play.settled()
        play.stage.open("B.purge.reply", _AWAY)
        await play.settled()
        assert _said(call) == (200, "queued")
        assert (await play.read("B")).value == NEW
        play.stage.free_all()
        play.clock.tick(1)
        await play.settled()
        assert play["A"].replica.applied == play["B"].replica.applied == 2
        assert not play["B"].replica.fenced([play.tag])
        await play.all_new()


async def test_under_a_fence_the_result_of_another_replica_is_not_taken(cluster: Make) -> None:
    """B's waiter is given A's old result after B's purge was queued: it refuses that, and forwards."""
    async with cluster("A", "B") as play:
        play.stage.hold("F.has-read", "B.purge.ask", "B.beat.ask")
        play.reads("F", "A")
        await play.settled()
        waiter = play.reads("W", "B")
        await play.settled()
        call = play.mutates("M", "B")
        await play.settled()
        play.stage.open("B.purge.ask", _AWAY)
        await play.settled()
        assert _said(call) == (200, "queued")
        play.stage.free("F.has-read")
        await play.settled()
        assert (waiter.value, play.l2("B", "outdated")) == (NEW, 1)
        play.stage.free_all()
        play.clock.tick(1)
        await play.settled()
        await play.all_new()


async def test_under_a_fence_a_reply_of_l2_that_was_asked_for_before_it_is_refused(cluster: Make) -> None:
    """The read was sent when nothing was fenced; what it saw is from before the write."""
    async with cluster("A", "B") as play:
        await play.read("A")
        play.stage.hold("R.read.reply", "B.purge.ask", "B.beat.ask")
        reader = play.reads("R", "B")
        await play.settled()
        play.mutates("M", "B")
        await play.settled()
        play.stage.open("B.purge.ask", _AWAY)
        await play.settled()
        play.stage.free("R.read.reply")
        await play.settled()
        assert (reader.value, play.l2("B", "outdated")) == (NEW, 1)


async def test_what_b_stores_for_all_under_its_fence_is_given_up_with_the_number(cluster: Make) -> None:
    """A takes what B filled under the fence; the purge that gets its number then ends that too, and costs a forward."""
    async with cluster("A", "B") as play:
        play.stage.hold("B.purge.ask", "B.beat.ask")
        play.mutates("M", "B")
        await play.settled()
        play.stage.open("B.purge.ask", _AWAY)
        await play.settled()
        assert (await play.read("B")).value == NEW
        taken = await play.read("A")
        assert (taken.value, taken.how) == (NEW, "hit")
        play.stage.free_all()
        play.clock.tick(1)
        await play.settled()
        await play.all_new()
        assert play.forwards == 2


async def test_a_purge_by_hand_that_is_queued_says_so_and_is_fenced(cluster: Make) -> None:
    """`invalidate` raises, and the tags are fenced; a soft one fences nothing."""
    async with cluster("A", "B", stale_while_revalidate=9_000) as play:
        await play.read("B")
        for soft in (True, False):
            play.stage.hold("B.purge.ask", "B.beat.ask")
            writing = play.purges("B", soft=soft)
            await play.settled()
            play.stage.open("B.purge.ask", _AWAY)
            await play.settled()
            with pytest.raises(PurgeNotDelivered):
                writing.result()
            assert play["B"].replica.fenced([play.tag]) is not soft
            play.stage.free_all()
            play.clock.tick(1)
            await play.settled()
            assert play["B"].cache.statistics().queue_length == 0
        assert play["A"].replica.applied == 2


async def test_a_purge_queued_in_one_term_is_written_in_the_next(cluster: Make) -> None:
    """The server is flushed before it gets its number: it is written in the new term, and the fence lifted after that."""
    async with cluster("A", "B") as play:
        await play.read("B")
        play.stage.hold("B.purge.ask", "B.beat.ask")
        play.mutates("M", "B")
        await play.settled()
        play.stage.open("B.purge.ask", _AWAY)
        await play.settled()
        play.server.client.flushall()
        play.beats("A")
        await play.settled()
        play.stage.free_all()
        play.clock.tick(1)
        await play.settled()
        assert play["B"].replica.term == play["A"].replica.term
        assert (play["A"].replica.applied, play["B"].replica.fenced([play.tag])) == (1, False)
        await play.all_new()
