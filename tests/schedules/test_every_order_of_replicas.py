"""A fill, a purge, a reader, a heartbeat and a message on two replicas and a real Valkey, in every order.

Then once more with one rule taken out at a time: some order has to show what that rule is for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from math import inf
from typing import Any

import pytest

from fastapi_cacheinval.core.backlog import Recent
from fastapi_cacheinval.core.replica import Replica
from fastapi_cacheinval.core.stored import Stamp
from fastapi_cacheinval.engine.fill_locks import FillLocks
from fastapi_cacheinval.engine.log_follower import Follower
from fastapi_cacheinval.engine.log_writer import Shared
from fastapi_cacheinval.framework.keeping import Keeping
from tests.helpers.mutations import ask
from tests.schedules.cluster import BOUND, Cluster
from tests.schedules.theatre import Theatre

pytestmark = pytest.mark.anyio

Make = Callable[..., Cluster]
Play = Callable[[Cluster, str], Awaitable[Theatre]]


async def _fill_and_reader(play: Cluster, until: str) -> Theatre:
    theatre = Theatre(play, "F.arrives F.has-read A.release.ask W.writes A.message R.arrives", until=until)
    await theatre.plays(theatre.reads("F", "A"), theatre.purges("B"), theatre.reads("R", "A"))
    return theatre


async def _fill_and_reader_of_l2(play: Cluster, until: str) -> Theatre:
    theatre = Theatre(play, "F.has-read A.release.ask W.writes B.purge.reply R.arrives R.read.reply", until=until)
    await theatre.plays(theatre.reads("F", "A"), theatre.purges("B"), theatre.reads("R", "B"))
    return theatre


async def _fill_and_waiter(play: Cluster, until: str) -> Theatre:
    theatre = Theatre(play, "F.has-read A.release.ask W.writes A.message R.arrives R.claim.reply", until=until)
    await theatre.plays(theatre.reads("F", "A"), theatre.purges("B"), theatre.reads("R", "B"))
    return theatre


async def _heartbeat(play: Cluster, until: str) -> Theatre:
    theatre = Theatre(play, "W.writes A.message A.beat.ask A.beat.reply T.1 R.arrives", until=until)

    async def stored() -> None:
        await play.read("A")

    await theatre.plays(
        theatre.purges("B"), theatre.beats("A"), theatre.ticks(BOUND), theatre.reads("R", "A"), prepare=stored
    )
    return theatre


async def _lapse(play: Cluster, until: str) -> Theatre:
    theatre = Theatre(play, "W.writes A.message A.beat.ask T.1 R.arrives R.read.reply", until=until)

    async def stored_by_another() -> None:
        await play.read("B")

    await theatre.plays(theatre.purges("B"), theatre.ticks(BOUND), theatre.reads("R", "A"), prepare=stored_by_another)
    return theatre


async def _queued(play: Cluster, until: str) -> Theatre:
    theatre = Theatre(
        play, "F.has-read A.release.ask W.writes B.purge.ask B.beat.ask R.arrives", fails="B.purge.ask", until=until
    )
    await theatre.plays(theatre.reads("F", "A"), theatre.purges("B"), theatre.reads("R", "B"))
    return theatre


async def _late(play: Cluster, until: str) -> Theatre:
    theatre = Theatre(play, "F.has-read M.commits T.1 A.message R.arrives", until=until)
    await theatre.plays(theatre.reads("F", "A"), theatre.mutates("B"), theatre.ticks(0.2), theatre.reads("R", "B"))
    return theatre


async def _two_primaries(play: Cluster, until: str) -> Theatre:
    theatre = Theatre(play, "X.1 X.2 X.3 W.writes B.purge.reply H.1", until=until)
    saved: dict[str, dict[bytes, bytes]] = {}

    async def stored() -> None:
        # So long after the last order that B does not write its purge once more in this one.
        play.clock.tick(BOUND + 1)
        await play.settled()
        await theatre.in_touch()
        await play.read("A")

    async def a_follows_the_new_primary() -> None:
        saved["old"] = play.log_saved()
        play.log_restored({})
        await play["A"].follower.synced()
        # What A fills from here on is of the new term, and may be older than the write.
        await ask(play["A"].app, "GET", play.path)

    async def b_talks_to_the_old_one() -> None:
        saved["new"] = play.log_saved()
        play.log_restored(saved["old"])

    async def the_old_one_is_gone() -> None:
        play.log_restored(saved["new"])

    async def b_asks() -> None:
        play.beats("B")

    primaries = theatre.does("X", a_follows_the_new_primary, b_talks_to_the_old_one, the_old_one_is_gone)
    await theatre.plays(primaries, theatre.purges("B"), theatre.does("H", b_asks), prepare=stored)
    return theatre


async def _cancelled_leader(play: Cluster, until: str) -> Theatre:
    gates = "F.read.reply F.claim.reply F.has-read X.cancels V.arrives V.claim.reply W.claim.reply W.has-read"
    theatre = Theatre(play, gates, until=until)
    await theatre.plays(
        theatre.reads("F", "A"),
        theatre.reads("W", "A"),
        theatre.reads("V", "B"),
        theatre.cancels("F"),
        check=theatre.one_at_a_time,
    )
    return theatre


async def test_a_fill_a_purge_its_message_and_a_reader(cluster: Make, capsys: Any) -> None:
    """A fills and stores for all, B purges, A hears of it, and a reader comes to A at any moment."""
    async with cluster("A", "B") as play:
        (await _fill_and_reader(play, "")).report("fill, purge, message, reader", capsys, 65)


async def test_a_fill_a_purge_and_a_reader_of_l2(cluster: Make, capsys: Any) -> None:
    """The same with the reader on B, whose own purge it is: what A has stored reaches it through L2 alone."""
    async with cluster("A", "B") as play:
        (await _fill_and_reader_of_l2(play, "")).report("fill, purge, reader of L2", capsys, 90)


async def test_a_fill_a_purge_and_a_waiter_on_another_replica(cluster: Make, capsys: Any) -> None:
    """The reader on B waits for A's fill lock, and A may not have heard of the purge when it stores for both."""
    async with cluster("A", "B") as play:
        (await _fill_and_waiter(play, "")).report("fill, purge, waiter on another replica", capsys, 88)


async def test_a_purge_its_message_a_heartbeat_and_a_reader(cluster: Make, capsys: Any) -> None:
    """A has it stored; its lease lapses at any moment, and its heartbeat and the message come before or after."""
    async with cluster("A", "B") as play:
        (await _heartbeat(play, "")).report("purge, message, heartbeat, lease, reader", capsys, 180)


async def test_a_reader_of_l2_whose_lease_lapses(cluster: Make, capsys: Any) -> None:
    """The reply of L2 comes while A is in touch, after its lease has lapsed, and after that was renewed."""
    async with cluster("A", "B") as play:
        (await _lapse(play, "")).report("purge, message, lease, reader of L2", capsys, 70)


async def test_a_purge_that_is_queued(cluster: Make, capsys: Any) -> None:
    """Its script call fails and later succeeds; a fill on A and a reader on B come at any moment of that."""
    async with cluster("A", "B") as play:
        (await _queued(play, "")).report("fill, queued purge, reader", capsys, 60)


async def test_a_mutation_that_is_released_late(cluster: Make, capsys: Any) -> None:
    """The hold runs out before or after the commit, and a fill on A spans either."""
    async with cluster("A", "B") as play:
        (await _late(play, "")).report("fill, late mutation, reader", capsys, 120)


async def test_a_purge_and_a_failover_with_two_primaries(cluster: Make, capsys: Any) -> None:
    """B's purge is written by the primary that is given up, whose reply comes before or after B has found the other."""
    async with cluster("A", "B") as play:
        (await _two_primaries(play, "")).report("purge, two primaries, heartbeat", capsys, 60)


async def test_a_leader_that_is_cancelled(cluster: Make, capsys: Any) -> None:
    """At any moment of its way: who waits beside it and on the other replica is served, by one forward at a time."""
    async with cluster("A", "B") as play:
        (await _cancelled_leader(play, "")).report("leader cancelled, waiters on both replicas", capsys, 47)


# -- with one rule taken out ----------------------------------------------------------------------

_hand_over = Replica.stale_from
_answered = Replica.apply_reply
_keep = Keeping.keep


def _no_lease(patch: pytest.MonkeyPatch) -> None:
    """What is found in L2 or kept is handed over, whether or not the lease says that the map is whole."""

    def stale_from(self: Any, stamp: Any, tags: Any, now: float) -> float | None:
        return _hand_over(self, stamp, tags, min(now, self.lease_until - 1))

    def adopt(self: Any, term: Any, as_of: int, now: float) -> Stamp | None:
        return Stamp(self.generation, as_of, 0, -inf) if term == self.term else None

    patch.setattr(Replica, "stale_from", stale_from)
    patch.setattr(Replica, "adopt", adopt)
    patch.setattr(Replica, "live", lambda self, now: True)


def _no_cells(patch: pytest.MonkeyPatch) -> None:
    """What is handed over is not compared with what was purged."""
    patch.setattr(Replica, "stale_from", lambda self, stamp, tags, now: _hand_over(self, stamp, (), now))


def _stamped_late(patch: pytest.MonkeyPatch) -> None:
    """A fill is stamped when it ends."""

    def keep(self: Any, start: Any, body: bytes) -> Any:
        engine, rules = self._exchange.app_context.engine, self._rules
        rules._recipe = replace(rules._recipe, stamp=engine.replica.stamp(engine.now()))
        return _keep(self, start, body)

    patch.setattr(Keeping, "keep", keep)


def _lease_from_the_reply(patch: pytest.MonkeyPatch) -> None:
    """The lease begins when the reply has arrived, not when it was asked for."""
    patch.setattr(Replica, "apply_reply", lambda self, reply, sent, now, **how: _answered(self, reply, now, now, **how))


def _no_fence(patch: pytest.MonkeyPatch) -> None:
    """A purge without a number fences nothing."""
    patch.setattr(Shared, "queue", lambda self, tags, *, soft, **_: self.backlog.add(tags, soft=soft, fence=None))


def _older_term(patch: pytest.MonkeyPatch) -> None:
    """A purge is done whatever term it was written in."""

    async def write(self: Any, proposal: Any) -> Any:
        sent = self._clock.now()
        answer = await self.log.run(self._replica.ask(), self._shared.identity, purge=proposal)
        await self._reader.take(answer.reply, sent, answer.line)
        return answer.line

    patch.setattr(Follower, "write", write)


def _not_again(patch: pytest.MonkeyPatch) -> None:
    """What a replica has purged of late is not written again in a new term."""
    patch.setattr(Recent, "take", lambda self, now: [])


def _not_given_back(patch: pytest.MonkeyPatch) -> None:
    """Who is cancelled while it asks for a fill lock lets go of nothing."""

    async def given_back(self: Any, key: bytes, owner: str) -> None:
        pass

    patch.setattr(FillLocks, "_given_back", given_back)


@pytest.mark.parametrize(
    ("without", "play_of", "seen"),
    [
        (_no_lease, _lapse, "G3: R came later than the bound"),
        (_no_lease, _heartbeat, "G3: R came later than the bound"),
        (_no_cells, _fill_and_reader, "G3: R came after its replica had applied the purge"),
        (_no_cells, _fill_and_reader_of_l2, "G2: R came to the purge's own replica"),
        (_no_cells, _fill_and_waiter, "G4: R was handed over the old"),
        (_stamped_late, _fill_and_reader, "the old value stayed on A"),
        (_stamped_late, _fill_and_reader_of_l2, "the old value stayed on B"),
        (_lease_from_the_reply, _heartbeat, "G3: R came later than the bound"),
        (_no_fence, _queued, "G2: R came to the purge's own replica"),
        (_older_term, _two_primaries, "the old value stayed on B"),
        (_not_given_back, _cancelled_leader, "somebody waits for ever"),
        (_not_again, _two_primaries, "the old value stayed on B"),
    ],
)
async def test_without_a_rule_some_order_is_wrong(
    cluster: Make, monkeypatch: pytest.MonkeyPatch, without: Callable[[Any], None], play_of: Play, seen: str
) -> None:
    """Each rule is there for what these orders show without it."""
    async with cluster("A", "B") as play:
        without(monkeypatch)
        theatre = await play_of(play, seen)
        assert theatre.violations[-1].startswith(seen), theatre.violations
