"""A fill on one replica races a purge on another, at the script, the message, the write to and the read from L2."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.schedules.cluster import BOUND, NEW, OLD, Cluster

pytestmark = pytest.mark.anyio

Make = Callable[..., Cluster]


async def test_a_fill_that_has_read_before_the_purge_is_kept_nowhere(cluster: Make) -> None:
    """The handler on A has read, B purges and A applies it: the answer goes to its own client and to nobody else."""
    async with cluster("A", "B") as play:
        play.stage.hold("F.has-read")
        fill = play.reads("F", "A")
        await play.settled()
        play.value = NEW
        await play.purges("B")
        await play.settled()
        play.stage.open("F.has-read")
        await play.settled()
        assert (fill.value, fill.how) == (OLD, "superseded")
        assert play.l2("A", "write") == 0
        assert play.locks() == []
        await play.all_new()


async def test_a_fill_that_began_before_the_script_reads_the_new_value_all_the_same(cluster: Make) -> None:
    """Its stamp is older than the purge, so nobody can prove it new: it is right, and kept nowhere."""
    async with cluster("A", "B") as play:
        play.stage.hold("F.claim.reply")
        fill = play.reads("F", "A")
        await play.settled()
        play.value = NEW
        await play.purges("B")
        await play.settled()
        play.stage.open("F.claim.reply")
        await play.settled()
        assert (fill.value, fill.how) == (NEW, "superseded")
        await play.all_new()


async def test_a_fill_that_began_after_the_script_and_before_the_message_costs_one_more_forward(cluster: Make) -> None:
    """A has not heard of the purge when the fill begins: its new value is kept, and given up when the message comes."""
    async with cluster("A", "B") as play:
        play.stage.hold("A.message")
        play.value = NEW
        await play.purges("B")
        await play.settled()
        fill = play.reads("F", "A")
        await play.settled()
        assert (fill.value, fill.how) == (NEW, "forwarded")
        assert (await play.read("B")).how == "forwarded"
        play.stage.free("A.message")
        await play.settled()
        assert play["A"].replica.applied == 1
        await play.all_new()


async def test_what_a_late_replica_stores_for_all_is_refused_by_who_knows_of_the_purge(cluster: Make) -> None:
    """A's message is late and its fill old: A may give it away within its lease, B never, and C as long as A."""
    async with cluster("A", "B", "C") as play:
        play.stage.hold("F.has-read", "A.message", "C.message")
        fill = play.reads("F", "A")
        await play.settled()
        play.value = NEW
        await play.purges("B")
        await play.settled()
        play.stage.open("F.has-read")
        await play.settled()
        assert (fill.value, fill.how, play.l2("A", "write")) == (OLD, "forwarded", 1)
        late = await play.read("C")
        assert (late.value, late.how, play.l2("C", "hit")) == (OLD, "hit", 1)
        assert (await play.read("B")).value == NEW
        assert play.l2("B", "outdated") == 1
        play.stage.free("A.message", "C.message")
        await play.settled()
        await play.all_new()


async def test_an_old_response_written_after_everybody_has_applied_the_purge_is_refused_by_all(cluster: Make) -> None:
    """The write to L2 is under way while the purge is written and applied everywhere: the check is at the reader."""
    async with cluster("A", "B", "C") as play:
        play.stage.hold("A.release.ask")
        fill = play.reads("F", "A")
        await play.settled()
        assert (fill.value, fill.how) == (OLD, "forwarded")
        play.value = NEW
        await play.purges("B")
        await play.settled()
        play.stage.free("A.release.ask")
        await play.settled()
        assert play.l2("A", "write") == 1
        await play.all_new("C", "B", "A")
        assert play.l2("C", "outdated") == 1
        assert play.forwards == 2


async def test_a_fresh_response_overwritten_by_an_old_one_costs_a_forward_and_no_stale_answer(cluster: Make) -> None:
    """A's write to L2 comes after B has stored the new value under the same key."""
    async with cluster("A", "B", "C") as play:
        play.stage.hold("A.release.ask")
        play.reads("F", "A")
        await play.settled()
        play.value = NEW
        await play.purges("B")
        # The lock of A's fill ends before its write comes.
        play.server.client.delete(*play.locks())
        await play.all_new("B")
        play.stage.free("A.release.ask")
        await play.settled()
        await play.all_new("C", "A", "B")


async def test_a_reply_of_l2_that_arrives_after_the_purge_was_applied_is_refused(cluster: Make) -> None:
    """The read was sent before the purge and saw what was valid then."""
    async with cluster("A", "B", "C") as play:
        await play.read("A")
        play.stage.hold("R.read.reply")
        reader = play.reads("R", "C")
        await play.settled()
        play.value = NEW
        await play.purges("B")
        await play.settled()
        assert play["C"].replica.applied == 1
        play.stage.open("R.read.reply")
        await play.settled()
        assert reader.value == NEW
        assert (play.l2("C", "outdated"), play.l2("C", "hit")) == (1, 0)
        await play.all_new()


async def test_a_reply_of_l2_that_arrives_after_the_lease_has_lapsed_is_refused(cluster: Make) -> None:
    """The map of purged tags is whole only as long as the lease says so: the purge of B is unknown to C."""
    async with cluster("A", "B", "C") as play:
        await play.read("A")
        play.stage.hold("R.read.reply", "C.beat.ask", "C.message")
        reader = play.reads("R", "C")
        await play.settled()
        play.value = NEW
        await play.purges("B")
        play.clock.tick(BOUND + 1)
        await play.settled()
        assert not play["C"].replica.live(play.clock.now())
        play.stage.open("R.read.reply")
        await play.settled()
        assert reader.value == NEW
        assert (play.l2("C", "outdated"), play.l2("C", "hit")) == (1, 0)
        play.stage.free("C.beat.ask", "C.message")
        await play.settled()
        await play.all_new()


async def test_a_reply_of_l2_under_a_lease_renewed_meanwhile_is_refused_for_what_the_renewal_told(
    cluster: Make,
) -> None:
    """The lease lapses and is renewed while the reply is on its way: the lines that were missed count."""
    async with cluster("A", "B", "C") as play:
        await play.read("A")
        play.stage.hold("R.read.reply", "C.beat.ask", "C.message")
        reader = play.reads("R", "C")
        await play.settled()
        play.value = NEW
        await play.purges("B")
        play.clock.tick(BOUND + 1)
        await play.settled()
        play.stage.free("C.beat.ask")
        play.clock.tick(BOUND / 3)
        await play.settled()
        assert play["C"].replica.live(play.clock.now())
        play.stage.open("R.read.reply")
        await play.settled()
        assert reader.value == NEW
        assert play.l2("C", "hit") == 0
        await play.all_new()


async def test_a_lease_that_lapses_while_the_purge_is_late_ends_what_was_kept(cluster: Make) -> None:
    """A neither hears nor asks: what it kept is not handed over past the bound, whoever asks for it."""
    async with cluster("A", "B") as play:
        await play.read("A")
        play.stage.hold("A.message", "A.beat.ask")
        play.value = NEW
        await play.purges("B")
        play.clock.tick(BOUND - 1)
        await play.settled()
        within = await play.read("A")
        assert (within.value, within.how) == (OLD, "hit")
        play.clock.tick(1)
        past = await play.read("A")
        assert (past.value, past.how) == (NEW, "forwarded")
        play.stage.free("A.message", "A.beat.ask")
        await play.settled()
        await play.all_new()


async def test_a_refresh_that_has_read_before_the_purge_brings_nothing_old_back(cluster: Make) -> None:
    """Stale-while-revalidate on A while B purges: the refresh is a fill like any other."""
    async with cluster("A", "B", ttl=1, stale_while_revalidate=9_000) as play:
        await play.read("A")
        play.passes(2)
        play.stage.hold("A.has-read")
        reader = play.reads("R", "A")
        await play.settled()
        assert (reader.value, reader.how) == (OLD, "stale")
        play.value = NEW
        await play.purges("B")
        await play.settled()
        waiter = play.reads("W", "A")
        await play.settled()
        assert waiter.answer is None
        play.stage.free("A.has-read")
        await play.settled()
        assert waiter.value == NEW
        assert play.locks() == []
        await play.all_new()


async def test_a_refresh_that_finds_what_another_replica_refreshed_before_the_purge_goes_forward(cluster: Make) -> None:
    """A's refresh reads the newer response that B's has stored; the purge is applied before the reply has arrived."""
    async with cluster("A", "B", ttl=1, stale_while_revalidate=9_000) as play:
        await play.read("A")
        await play.read("B")
        play.passes(2)
        play.stage.hold("A.read.ask", "A.read.reply")
        assert (await play.read("A")).how == "stale"
        assert (await play.read("B")).how == "stale"
        assert play["B"].cache._core.counters.refreshes["stored"] == 1
        play.stage.open("A.read.ask")
        await play.settled()
        play.value = NEW
        await play.purges("B")
        await play.settled()
        play.stage.free("A.read.ask", "A.read.reply")
        await play.settled()
        assert play.l2("A", "outdated") == 1
        assert play.forwards == 3
        await play.all_new()
