"""Terms that end under purges, fills and replies on their way, and a log that was rolled back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fastapi_cacheinval.core.log_types import Reset
from tests.schedules.cluster import NEW, OLD, Cluster

pytestmark = pytest.mark.anyio

Make = Callable[..., Cluster]


async def test_a_new_term_makes_everything_from_before_unusable(cluster: Make) -> None:
    """The server was flushed: who finds out first opens a term, and the others learn of it by message or heartbeat."""
    async with cluster("A", "B") as play:
        await play.read("A")
        await play.read("B")
        before = play["A"].replica.term
        play.server.client.flushall()
        play.value = NEW
        play.beats("B")
        await play.settled()
        await play.purges("B")
        await play.settled()
        assert play["A"].replica.term == play["B"].replica.term
        assert play["A"].replica.term.number == before.number + 1
        await play.all_new()


async def test_a_write_of_a_fill_from_before_the_new_term_is_refused_in_it(cluster: Make) -> None:
    """What says to be of the old term may have been purged by what was lost."""
    async with cluster("A", "B") as play:
        play.stage.hold("A.release.ask")
        play.reads("F", "A")
        await play.settled()
        play.server.client.flushall()
        play.beats("A", "B")
        await play.settled()
        play.value = NEW
        play.stage.free("A.release.ask")
        await play.settled()
        reading = await play.read("B")
        assert (reading.value, play.l2("B", "outdated")) == (NEW, 1)


async def test_a_fill_that_began_in_the_old_term_is_kept_nowhere(cluster: Make) -> None:
    """Its number means something else in the new one."""
    async with cluster("A", "B") as play:
        play.stage.hold("F.has-read")
        fill = play.reads("F", "A")
        await play.settled()
        play.server.client.flushall()
        play.beats("A", "B")
        await play.settled()
        play.value = NEW
        play.stage.free("F.has-read")
        await play.settled()
        assert (fill.value, fill.how, play.l2("A", "write")) == (OLD, "superseded", 0)
        await play.all_new()


async def test_a_purge_whose_reply_comes_after_a_reset_to_a_later_term_is_written_again(cluster: Make) -> None:
    """The line that it got was lost with its term: a purge is done in the term that this replica is in."""
    async with cluster("A", "B") as play:
        play.stage.hold("B.purge.reply")
        play.value = NEW
        writing = play.purges("B")
        await play.settled()
        play.server.client.flushall()
        play.beats("B")
        await play.settled()
        term = play["B"].replica.term
        assert not writing.done()
        play.stage.free("B.purge.reply")
        await play.settled()
        receipt = writing.result()
        first, second = [answer.line for answer in play["B"].log.answers if answer.line is not None]
        assert first.term.number < second.term.number == receipt.term
        assert (second.term, second.seq, play["B"].replica.applied) == (term, receipt.seq, receipt.seq)
        play.beats("A")
        await play.settled()
        assert play["A"].replica.cells[play.tag][0] == receipt.seq


async def test_an_own_purge_is_visible_although_its_term_ended_before_its_reply_came(cluster: Make) -> None:
    """B fills in the new term with what was there before the write, and then hears that its purge was written."""
    async with cluster("A", "B") as play:
        play.stage.hold("B.purge.reply")
        writing = play.purges("B")
        await play.settled()
        play.server.client.flushall()
        play.beats("B")
        await play.settled()
        assert (await play.read("B")).value == OLD
        play.value = NEW
        play.stage.free("B.purge.reply")
        await play.settled()
        assert writing.done()
        await play.all_new("B")


@pytest.mark.parametrize("latest_first", [False, True])
@pytest.mark.parametrize("later", [True, False])
async def test_two_resets_to_different_terms_end_in_the_one_that_stands(
    cluster: Make, later: bool, latest_first: bool
) -> None:
    """The server is flushed twice, and two replies of A's tell of each: in either order A ends where the log is.

    The second term has a later number where somebody had seen the first, else the same one with another nonce.
    """
    async with cluster("A", "B") as play:
        await play.read("A")
        play.stage.hold("A.beat.reply", "A.purge.reply")
        play.server.client.flushall()
        play.beats("A")
        await play.settled()
        if later:
            play.beats("B")
            await play.settled()
        play.server.client.flushall()
        play.beats("B")
        await play.settled()
        writing = play.acts("W", play["A"].cache.invalidate("other"))
        await play.settled()
        resets: list[Any] = [answer.reply for answer in play["A"].log.answers[-2:]]
        assert [type(reset) for reset in resets] == [Reset, Reset]
        assert resets[1].term.number - resets[0].term.number == int(later)
        assert resets[1].term.nonce != resets[0].term.nonce
        waiting = ["A.purge.reply", "A.beat.reply"] if latest_first else ["A.beat.reply", "A.purge.reply"]
        for label in waiting:
            play.stage.open(label)
            await play.settled()
        play.stage.free_all()
        await play.settled()
        assert writing.done()
        play.beats("A")
        await play.settled()
        play.beats("B")
        await play.settled()
        assert play["A"].replica.term == play["B"].replica.term
        assert play["A"].replica.live(play.clock.now())
        play.value = NEW
        await play.purges("B")
        await play.settled()
        await play.all_new()


@pytest.mark.parametrize("latest_first", [False, True])
async def test_two_resets_to_one_term_forget_nothing_that_came_in_between(cluster: Make, latest_first: bool) -> None:
    """A heartbeat and a purge of A both find the new term, and purges lie between their replies."""
    async with cluster("A", "B") as play:
        play.stage.hold("A.beat.reply", "A.purge.reply", "A.message")
        play.server.client.flushall()
        play.beats("A")
        await play.settled()
        play.beats("B")
        await play.settled()
        await play.read("B")
        play.value = NEW
        await play.purges("B")
        writing = play.acts("W", play["A"].cache.invalidate("other"))
        await play.settled()
        waiting = ["A.purge.reply", "A.beat.reply"] if latest_first else ["A.beat.reply", "A.purge.reply"]
        for label in waiting:
            play.stage.open(label)
            await play.settled()
        play.stage.free("A.beat.reply", "A.purge.reply")
        await play.settled()
        assert writing.done()
        assert (play["A"].replica.applied, play["A"].replica.term) == (2, play["B"].replica.term)
        play.stage.free_all()
        await play.settled()
        await play.all_new()


# -- a log that was rolled back -------------------------------------------------------------------


async def test_a_log_that_was_rolled_back_is_found_out_by_who_had_read_further(cluster: Make) -> None:
    """A failover lost the purge: a new term opens, and what A filled after it is not taken for newer than it is."""
    async with cluster("A", "B") as play:
        await play.read("A")
        saved = play.log_saved()
        play.value = NEW
        await play.purges("B")
        await play.settled()
        before = play["A"].replica.term
        play.log_restored(saved)
        play.beats("A", "B")
        await play.settled()
        assert play["A"].replica.term == play["B"].replica.term
        assert play["A"].replica.term.number == before.number + 1
        await play.all_new()


async def test_a_log_rolled_back_and_written_again_to_the_same_number_is_found_out(cluster: Make) -> None:
    """Another purge got the lost one's number: the nonce tells them apart, by the message and by the heartbeat."""
    for by_message in (True, False):
        async with cluster("A", "B", "C") as play:
            await play.read("A")
            saved = play.log_saved()
            play.stage.hold("C.message", "C.beat.ask")
            play.value = NEW
            await play.purges("B")
            await play.settled()
            play.stage.open("C.message", "lost")
            play.log_restored(saved)
            play.stage.hold("A.message")
            other = await play["C"].cache.invalidate("other")
            await play.settled()
            assert other.seq == play["A"].replica.applied == 1
            before = play["A"].replica.term
            if by_message:
                play.stage.open("A.message")
            else:
                play.stage.open("A.message", "lost")
                play.beats("A")
            await play.settled()
            assert play["A"].replica.term.number == before.number + 1
            play.stage.free_all()
            play.beats("B", "C")
            await play.settled()
            await play.all_new()
        play.server.client.flushall()


async def test_a_lost_purge_of_a_replica_that_was_rolled_back_is_obeyed_by_its_writer(cluster: Make) -> None:
    """Nobody but B had read the line that was lost: on B what it purged never comes back, from A's store neither."""
    async with cluster("A", "B") as play:
        await play.read("A")
        play.stage.hold("A.message", "A.beat.ask")
        saved = play.log_saved()
        play.value = NEW
        await play.purges("B")
        await play.settled()
        play.stage.open("A.message", "lost")
        play.log_restored(saved)
        await play.all_new("B")
        play.beats("B")
        await play.settled()
        await play.all_new("B")
        play.stage.free_all()
        play.beats("A")
        await play.settled()
        await play.all_new()
