"""Replies and messages of the log in any order: late, doubled, lost, of another term, of a log that was rolled back."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest

from fastapi_cacheinval.core.replica import Missed, Reset
from tests.races.cluster import BOUND, NEW, OLD, Cluster

pytestmark = pytest.mark.anyio

Make = Callable[..., Cluster]


def _replies(play: Cluster, name: str) -> list[type]:
    return [type(answer.reply) for answer in play[name].log.answers]


# -- heartbeats and messages ----------------------------------------------------------------------


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
            assert play["A"].cache.counters.purges == {event: 1}
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
        assert play["A"].cache.counters.purges == {"missed": 1}
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
        assert play["A"].cache.counters.purges == {"applied": 1}
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
        assert {tag: cell.hard for tag, cell in replica.cells.items()} == {"item:0": 1, "item:1": 2, "item:2": 3}
        assert sum(play["A"].cache.counters.purges.values()) == 3
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


# -- terms ----------------------------------------------------------------------------------------


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
        assert (reading.value, play.far("B", "outdated")) == (NEW, 1)


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
        assert (fill.value, fill.how, play.far("A", "write")) == (OLD, "superseded", 0)
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
        assert play["A"].replica.cells[play.tag].hard == receipt.seq


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
