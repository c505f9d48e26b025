"""One forward per key in the cluster: who waits, who leads next, and what a waiter is not given."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.schedules.cluster import BOUND, NEW, OLD, Cluster
from tests.schedules.reading import Reading

pytestmark = pytest.mark.anyio

Make = Callable[..., Cluster]


def _cancel(reading: Reading) -> None:
    assert reading.call is not None
    reading.call.task.cancel()


async def test_a_waiter_on_another_replica_is_given_the_result_of_the_one_forward(cluster: Make) -> None:
    """A forwards, B waits for its lock, is woken, and takes what A has stored."""
    async with cluster("A", "B") as play:
        play.stage.hold("F.has-read")
        fill = play.reads("F", "A")
        await play.settled()
        waiter = play.reads("W", "B")
        await play.settled()
        assert waiter.answer is None
        play.stage.open("F.has-read")
        await play.settled()
        assert (fill.how, waiter.how, play.forwards) == ("forwarded", "collapsed", 1)


async def test_a_waiter_that_is_not_woken_looks_by_itself(cluster: Make) -> None:
    """The message that wakes is lost: the waiter on B looks again after a while."""
    async with cluster("A", "B") as play:
        play.stage.hold("F.has-read", "B.woken")
        play.reads("F", "A")
        await play.settled()
        waiter = play.reads("W", "B")
        await play.settled()
        play.stage.open("F.has-read")
        await play.settled()
        play.stage.open("B.woken", "lost")
        await play.settled()
        assert waiter.answer is None
        play.clock.tick(0.25)
        await play.settled()
        assert (waiter.how, play.forwards) == ("collapsed", 1)


async def test_a_waiter_whose_replica_has_applied_the_purge_refuses_the_old_result_of_another(cluster: Make) -> None:
    """A has not heard of the purge and shares an old result; B has, forwards itself, and is right."""
    async with cluster("A", "B") as play:
        play.stage.hold("F.has-read", "A.message")
        fill = play.reads("F", "A")
        await play.settled()
        waiter = play.reads("W", "B")
        await play.settled()
        play.value = NEW
        await play.purges("B")
        await play.settled()
        play.stage.open("F.has-read")
        await play.settled()
        assert (fill.value, fill.how, play.l2("A", "write")) == (OLD, "forwarded", 1)
        # The waiter sees it, and the forward that begins after the purge once more.
        assert (waiter.value, play.l2("B", "outdated")) == (NEW, 2)
        play.stage.free("A.message")
        await play.settled()
        await play.all_new()


async def test_a_result_of_another_is_refused_by_a_waiter_that_wakes_after_the_purge(cluster: Make) -> None:
    """B's leader takes A's result for all who wait on B; one of them looks at it only after B has applied a purge."""
    async with cluster("A", "B") as play:
        await play.read("A")
        play.stage.hold("L.read.reply", "W.wakes")
        leader = play.reads("L", "B")
        await play.settled()
        waiter = play.reads("W", "B")
        await play.settled()
        play.stage.open("L.read.reply")
        await play.settled()
        assert (leader.value, leader.how) == (OLD, "hit")
        play.value = NEW
        await play.purges("A")
        await play.settled()
        play.stage.free("W.wakes")
        await play.settled()
        assert waiter.value == NEW
        await play.all_new()


async def test_a_waiter_on_b_that_came_after_the_purge_is_not_given_what_its_leader_began_before_it(
    cluster: Make,
) -> None:
    """B's leader waits for A's old fill; who comes to B after B's own purge joins it and is given the new value."""
    async with cluster("A", "B") as play:
        play.stage.hold("F.has-read")
        play.reads("F", "A")
        await play.settled()
        play.reads("L", "B")
        await play.settled()
        play.value = NEW
        await play.purges("B")
        after = play.reads("W", "B")
        await play.settled()
        play.stage.free("F.has-read")
        await play.settled()
        assert after.value == NEW
        assert play.locks() == []
        await play.all_new()


async def test_a_fill_lock_that_is_lost_costs_a_second_forward_and_no_stale_answer(cluster: Make) -> None:
    """A's lock ends while its fill runs: B forwards too; a purge in between outdates A's result, and not B's lock."""
    async with cluster("A", "B") as play:
        play.stage.hold("F.has-read", "G.has-read")
        fill = play.reads("F", "A")
        await play.settled()
        play.server.client.delete(*play.locks())
        play.value = NEW
        await play.purges("B")
        second = play.reads("G", "B")
        await play.settled()
        assert "G.has-read" in play.stage.parked
        play.stage.open("F.has-read")
        await play.settled()
        assert (fill.value, fill.how) == (OLD, "superseded")
        # A has let go of its own lock, and not of B's.
        assert len(play.locks()) == 1
        play.stage.open("G.has-read")
        await play.settled()
        assert (second.value, second.how, play.forwards) == (NEW, "forwarded", 2)
        assert play.locks() == []
        await play.all_new()


async def test_a_fill_lock_is_renewed_as_long_as_its_fill_runs(cluster: Make) -> None:
    """Every third of the bound; what is left of its life never falls to nothing."""
    async with cluster("A", "B") as play:
        play.stage.hold("F.has-read")
        play.reads("F", "A")
        await play.settled()
        for _ in range(4):
            play.passes(BOUND / 3 + 1)
            await play.settled()
        assert play.stage.passed["A.renew.ask"] == 4
        waiter = play.reads("W", "B")
        await play.settled()
        play.stage.open("F.has-read")
        await play.settled()
        assert (waiter.how, play.forwards) == ("collapsed", 1)


async def test_a_leader_cancelled_in_its_handler_hands_the_lock_to_a_waiter_beside_it(cluster: Make) -> None:
    """The waiter on A forwards under the same lock; the one on B goes on waiting: one forward at a time."""
    async with cluster("A", "B") as play:
        play.stage.hold("F.has-read", "W.has-read")
        fill = play.reads("F", "A")
        await play.settled()
        beside, l2 = play.reads("W", "A"), play.reads("V", "B")
        await play.settled()
        held = play.locks()
        _cancel(fill)
        await play.settled()
        assert "W.has-read" in play.stage.parked
        assert (play.locks(), play.stage.passed["V.handler"]) == (held, 0)
        play.stage.open("W.has-read")
        await play.settled()
        assert (beside.how, l2.how, play.forwards) == ("forwarded", "collapsed", 2)
        assert play.locks() == []


async def test_a_leader_cancelled_in_its_handler_with_nobody_beside_it_lets_another_replica_lead(cluster: Make) -> None:
    """The lock is let go of, and who waits on B is woken by that."""
    async with cluster("A", "B") as play:
        play.stage.hold("F.has-read")
        fill = play.reads("F", "A")
        await play.settled()
        l2 = play.reads("V", "B")
        await play.settled()
        _cancel(fill)
        await play.settled()
        assert (l2.how, play.forwards, play.locks()) == ("forwarded", 2, [])


@pytest.mark.parametrize("gate", ["F.claim.ask", "F.claim.reply"])
async def test_a_leader_cancelled_while_it_asks_for_the_lock_leaves_none_behind(cluster: Make, gate: str) -> None:
    """The server may have given it by then; nobody waits for a lock whose owner is gone."""
    async with cluster("A", "B") as play:
        play.stage.hold(gate)
        fill = play.reads("F", "A")
        await play.settled()
        l2 = play.reads("V", "B")
        await play.settled()
        _cancel(fill)
        await play.settled()
        assert (l2.how, play.forwards, play.locks()) == ("forwarded", 1, [])


@pytest.mark.parametrize("gate", ["F.claim.ask", "F.claim.reply", "F.read.ask", "F.read.reply"])
async def test_a_leader_cancelled_before_it_has_the_lock_is_followed_by_one_who_asks_for_it(
    cluster: Make, gate: str
) -> None:
    """The waiter beside it does not forward without the lock: B is at it, and one forward serves both."""
    async with cluster("A", "B") as play:
        play.stage.hold(gate, "V.has-read")
        fill = play.reads("F", "A")
        await play.settled()
        beside = play.reads("W", "A")
        await play.settled()
        play.server.client.delete(*play.locks() or ["-"])
        l2 = play.reads("V", "B")
        await play.settled()
        assert "V.has-read" in play.stage.parked
        _cancel(fill)
        await play.settled()
        assert play.stage.passed["W.handler"] == 0
        play.stage.open("V.has-read")
        await play.settled()
        assert (l2.how, beside.how, play.forwards) == ("forwarded", "collapsed", 1)
        assert play.locks() == []


async def test_a_leader_cancelled_while_another_replica_forwards_is_followed_by_one_who_waits_too(
    cluster: Make,
) -> None:
    """The leader on B waits for A's lock and is cancelled: the next one on B waits for A as well."""
    async with cluster("A", "B") as play:
        play.stage.hold("F.has-read")
        play.reads("F", "A")
        await play.settled()
        leader = play.reads("L", "B")
        await play.settled()
        waiter = play.reads("W", "B")
        await play.settled()
        _cancel(leader)
        await play.settled()
        assert (waiter.answer, play.forwards) == (None, 1)
        play.stage.open("F.has-read")
        await play.settled()
        assert (waiter.how, play.forwards, play.locks()) == ("collapsed", 1, [])


async def test_a_waiter_cancelled_as_it_is_named_leader_passes_the_lead_and_the_lock_on(cluster: Make) -> None:
    """Named and cancelled in the same moment: the next waiter leads, under the lock that is still held."""
    async with cluster("A", "B") as play:
        play.stage.hold("F.has-read", "X.has-read")
        fill = play.reads("F", "A")
        await play.settled()
        named = play.reads("W", "A")
        await play.settled()
        following, l2 = play.reads("X", "A"), play.reads("V", "B")
        await play.settled()
        held = play.locks()
        assert fill.call is not None
        # At the fill's end the waiter has been named, and has not run yet.
        fill.call.task.add_done_callback(lambda _: _cancel(named))
        _cancel(fill)
        await play.settled()
        assert ("X.has-read" in play.stage.parked, play.locks()) == (True, held)
        play.stage.open("X.has-read")
        await play.settled()
        assert (named.answer, play.stage.passed["W.handler"]) == (None, 0)
        assert (following.how, l2.how, play.forwards, play.locks()) == ("forwarded", "collapsed", 2, [])


async def test_two_leaders_that_fail_release_all_who_wait_on_every_replica(cluster: Make) -> None:
    """A's two forwards fail under one lock: who waits on B goes forward side by side, and nobody waits in turn."""
    async with cluster("A", "B") as play:
        play.fails = True
        play.stage.hold("F.has-read", "W.has-read")
        play.reads("F", "A")
        await play.settled()
        play.reads("W", "A")
        await play.settled()
        l2 = [play.reads(f"V{number}", "B") for number in range(3)]
        await play.settled()
        play.stage.open("F.has-read")
        await play.settled()
        play.stage.hold(*(f"V{number}.has-read" for number in range(3)))
        play.stage.open("W.has-read")
        await play.settled()
        assert sorted(play.stage.parked) == [f"V{number}.has-read" for number in range(3)]
        play.fails = False
        play.stage.free_all()
        await play.settled()
        assert {reading.value for reading in l2} == {OLD}
