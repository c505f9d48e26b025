"""Purges between replicas: of one's own, before the commit, cancelled, and waited for by all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fastapi_cacheinval.errors import LogUnavailable
from tests.helpers.mutations import Answer, Call
from tests.schedules.cluster import NEW, OLD, Cluster

pytestmark = pytest.mark.anyio

Make = Callable[..., Cluster]

_AWAY = LogUnavailable("it is gone")


def _said(call: Call) -> tuple[int, str | None]:
    answer = Answer(call.messages)
    return answer.status_code, answer.purge


# -- one's own write ------------------------------------------------------------------------------


async def test_an_own_purge_is_obeyed_before_the_response_although_its_message_is_late(cluster: Make) -> None:
    """B applies the reply of its own purge; the message that comes much later changes nothing."""
    async with cluster("A", "B") as play:
        await play.read("A")
        await play.read("B")
        play.stage.hold("B.message", "A.message")
        call = play.mutates("M", "B")
        await play.settled()
        assert _said(call) == (200, "done")
        await play.all_new("B")
        assert (await play.read("A")).value == OLD
        changes = play["B"].replica.changes
        play.stage.free("B.message", "A.message")
        await play.settled()
        assert play["B"].replica.changes == changes
        await play.all_new()


async def test_the_response_of_a_mutation_waits_for_the_reply_of_its_purge(cluster: Make) -> None:
    """The message may come first: the response still waits, and whoever reads meanwhile is given the new value."""
    async with cluster("A", "B") as play:
        await play.read("B")
        play.stage.hold("B.purge.reply")
        call = play.mutates("M", "B")
        await play.settled()
        assert not call.started
        assert play["B"].replica.applied == 1
        assert (await play.read("B")).value == NEW
        play.stage.free("B.purge.reply")
        await play.settled()
        assert _said(call) == (200, "done")
        await play.all_new()


async def test_a_fill_on_the_own_replica_that_began_before_the_purge_has_its_number_is_not_kept(cluster: Make) -> None:
    """The fill has read before the commit; the script runs, and its reply is late."""
    async with cluster("A", "B") as play:
        play.stage.hold("F.has-read", "B.purge.reply", "B.message")
        fill = play.reads("F", "B")
        await play.settled()
        call = play.mutates("M", "B")
        await play.settled()
        play.stage.open("F.has-read")
        await play.settled()
        assert (fill.value, fill.how) == (OLD, "forwarded")
        play.stage.free("B.purge.reply", "B.message")
        await play.settled()
        assert _said(call) == (200, "done")
        await play.all_new()


# -- before the commit ----------------------------------------------------------------------------


async def test_fills_in_the_gap_of_a_late_mutation_are_purged_once_it_has_committed(cluster: Make) -> None:
    """The hold runs out and the response goes before the commit: what both replicas fill then is purged after it."""
    async with cluster("A", "B") as play:
        await play.read("A")
        await play.read("B")
        play.stage.hold("M.commits")
        call = play.mutates("M", "B")
        await play.settled()
        assert not call.started
        play.clock.tick(0.2)
        await play.settled()
        assert _said(call) == (200, "queued")
        assert [(await play.read(name)).value for name in "ABAB"] == [OLD] * 4
        play.stage.free("M.commits")
        await play.settled()
        assert play["A"].replica.applied == play["B"].replica.applied == 2
        assert not play["B"].replica.fenced([play.tag])
        await play.all_new()


async def test_fills_that_span_the_commit_of_a_late_mutation_are_kept_nowhere(cluster: Make) -> None:
    """Both have read in the gap and end after the second purge."""
    async with cluster("A", "B") as play:
        play.stage.hold("M.commits", "F.has-read", "G.has-read")
        play.mutates("M", "B")
        await play.settled()
        play.clock.tick(0.2)
        await play.settled()
        # B refuses the cluster's lock under its fence, so both forward.
        first = play.reads("F", "A")
        await play.settled()
        second = play.reads("G", "B")
        await play.settled()
        play.stage.free("M.commits")
        await play.settled()
        play.stage.free("F.has-read", "G.has-read")
        await play.settled()
        assert [(reading.value, reading.how) for reading in (first, second)] == [(OLD, "superseded")] * 2
        await play.all_new()


async def test_a_late_mutation_whose_second_purge_is_queued_keeps_its_tags_fenced(cluster: Make) -> None:
    """The first is written, the second is not: the fence of the gap goes over into that of the queue."""
    async with cluster("A", "B") as play:
        play.stage.hold("M.commits", "B.beat.ask")
        play.mutates("M", "B")
        await play.settled()
        play.clock.tick(0.2)
        await play.settled()
        assert (await play.read("B")).value == OLD
        play.stage.hold("B.purge.ask")
        play.stage.free("M.commits")
        await play.settled()
        play.stage.open("B.purge.ask", _AWAY)
        await play.settled()
        assert play["B"].replica.fenced([play.tag])
        reading = await play.read("B")
        assert (reading.value, reading.how) == (NEW, "forwarded")
        play.stage.free_all()
        play.clock.tick(1)
        await play.settled()
        assert not play["B"].replica.fenced([play.tag])
        await play.all_new()


# -- cancelled ------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", ["M.writes", "M.commits", "M.committed", "B.purge.ask", "B.purge.reply"])
async def test_a_mutation_that_is_cancelled_purges_on_every_replica(cluster: Make, gate: str) -> None:
    """Wherever it was, committed or not: nobody is given what is not there."""
    async with cluster("A", "B") as play:
        await play.read("A")
        await play.read("B")
        play.stage.hold(gate)
        call = play.mutates("M", "B")
        await play.settled()
        call.task.cancel()
        await play.settled()
        # Before its purge has a number: on B everything from before is refused.
        assert (await play.read("B")).value == play.value
        play.stage.free_all()
        await play.settled()
        for name in "AB":
            first, second = await play.read(name), await play.read(name)
            assert (first.value, second.value, second.how) == (play.value, play.value, "hit")
        assert not play["B"].replica.fenced([play.tag])


async def test_a_mutation_cancelled_whose_purge_then_fails_is_queued(cluster: Make) -> None:
    """The request is gone, and its purge is not lost with it."""
    async with cluster("A", "B") as play:
        await play.read("A")
        await play.read("B")
        play.stage.hold("B.purge.ask", "B.beat.ask")
        call = play.mutates("M", "B")
        await play.settled()
        call.task.cancel()
        await play.settled()
        for label in list(play.stage.parked):
            if label.startswith("B.purge"):
                play.stage.open(label, _AWAY)
        await play.settled()
        assert play["B"].replica.fenced([play.tag])
        assert (await play.read("B")).value == NEW
        play.stage.free_all()
        play.clock.tick(1)
        await play.settled()
        assert not play["B"].replica.fenced([play.tag])
        await play.all_new()


@pytest.mark.parametrize("gate", ["B.purge.ask", "B.purge.reply"])
async def test_a_purge_by_hand_that_is_cancelled_is_made_all_the_same(cluster: Make, gate: str) -> None:
    """Whoever asked for it may have written already: it is fenced at once, and written as a queued one is."""
    async with cluster("A", "B") as play:
        await play.read("A")
        await play.read("B")
        play.stage.hold(gate, "B.beat.ask", "B.message")
        play.value = NEW
        writing = play.purges("B")
        await play.settled()
        writing.cancel()
        await play.settled()
        assert writing.cancelled()
        assert (await play.read("B")).value == NEW
        play.stage.free_all()
        await play.settled()
        assert not play["B"].replica.fenced([play.tag])
        assert play["B"].cache.statistics().queue_length == 0
        await play.all_new()


# -- waited for by all ----------------------------------------------------------------------------


async def test_a_purge_waits_until_every_replica_has_applied_it(cluster: Make) -> None:
    """A has applied the line, and the log does not know yet: the call returns when A's heartbeat has told it."""
    async with cluster("A", "B") as play:
        await play.read("A")
        play.opened_long_ago()
        play.stage.hold("A.message", "A.beat.ask")
        play.value = NEW
        writing = play.purges("B", wait="all")
        await play.settled()
        ((line, pending),) = [(said.line, said.pending) for said in play["B"].log.answers if said.line is not None]
        # B itself is not among them, and says with its next heartbeat that it has read the line.
        assert (pending, (await play["B"].log.behind(line)).behind >= 1, writing.done()) == (1, True, False)
        play.stage.open("A.message")
        await play.settled()
        assert play["A"].replica.applied == 1
        assert ((await play["B"].log.behind(line)).behind >= 1, writing.done()) == (True, False)
        play.stage.free("A.beat.ask")
        receipt = await writing
        assert receipt.replicas == 2
        await play.all_new()


async def test_a_purge_waits_for_a_replica_that_cannot_hear_it_until_its_lease_has_lapsed(cluster: Make) -> None:
    """On real time: A neither hears nor asks; when the call returns A gives nothing away any more."""
    async with cluster("A", "B", settings={"clock": None, "staleness_bound": 2.0}) as play:
        play.opened_long_ago()
        # Its fill is older than its lease, or it might be given away for as long as it is young.
        await play.read("A")
        play.beats("A")
        await play.settled()
        play.stage.hold("A.message", "A.beat.ask")
        play.value = NEW
        receipt = await play["B"].cache.invalidate(play.tag, wait="all")
        assert receipt.replicas == 1
        assert not play["A"].replica.live(play["A"].cache.clock.now())
        assert (await play.read("A")).value == NEW


async def test_a_purge_is_waited_for_in_the_new_term_too(cluster: Make) -> None:
    """The server is flushed while it is waited for: leases of the old term count as long as they could live."""
    async with cluster("A", "B") as play:
        play.stage.hold("A.message", "A.beat.ask", "B.beat.ask")
        play.value = NEW
        writing = play.purges("B", wait="all")
        await play.settled()
        play.server.client.flushall()
        play.stage.free("B.beat.ask")
        await play.settled()
        line = next(answer.line for answer in play["B"].log.answers if answer.line is not None)
        standing = await play["B"].log.behind(line)
        assert (standing.behind, standing.there, standing.young, writing.done()) == (1, 1, True, False)
        play.opened_long_ago()
        assert (await writing).replicas == 1
