"""A replica joins: what was purged before is learned page by page while purges, terms and requests go on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fastapi_cacheinval.bus import redis as bus
from tests.schedules.cluster import NEW, OLD, Cluster

pytestmark = pytest.mark.anyio

Make = Callable[..., Cluster]


async def _stored_and_purged(play: Cluster) -> None:
    """What A has stored in L2 is purged by B, and stays there."""
    await play.read("A")
    play.value = NEW
    await play.purges("B")
    await play.settled()


async def test_before_it_has_learned_nothing_from_before_is_used(cluster: Make) -> None:
    """The first page is asked for and not there: what others have stored may have been purged since."""
    async with cluster("A", "B") as play:
        await play.read("A")
        play.path = "/item/2"
        await play.read("A")
        await play.purges("B")
        await play.settled()
        play.stage.hold("C.page.reply")
        (await play.joins("C")).serves_at_once()
        play.path = "/item/1"
        assert (await play.read("C")).how == "forwarded"
        assert play.l2("C", "outdated") == 1
        assert play["C"].replica.floor == 1


async def test_once_it_has_learned_what_was_not_purged_is_used_and_what_was_is_not(cluster: Make) -> None:
    """The purge of one tag came before C joined, that of the other never."""
    async with cluster("A", "B") as play:
        play.path = "/item/2"
        await play.read("A")
        play.path = "/item/1"
        await _stored_and_purged(play)
        await play.joins("C")
        assert play["C"].replica.floor == 0
        reading = await play.read("C")
        assert (reading.value, play.l2("C", "outdated")) == (NEW, 1)
        play.path = "/item/2"
        other = await play.read("C")
        assert (other.value, other.how) == (OLD, "hit")


async def test_a_tag_purged_again_while_its_page_is_asked_for_stays_purged(cluster: Make) -> None:
    """The log remembers each tag's last purge only: the page must not leave out what was purged once more since."""
    async with cluster("A", "B") as play:
        await _stored_and_purged(play)
        play.stage.hold("C.page.ask", "C.message")
        await play.joins("C")
        await play.purges("B")
        await play.settled()
        play.stage.open("C.page.ask")
        await play.settled()
        play["C"].serves_at_once()
        reading = await play.read("C")
        assert reading.value == NEW
        play.stage.free_all()
        await play.settled()
        await play.all_new()


async def test_a_tag_purged_again_between_two_pages_stays_purged(
    cluster: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would have been on the second, older page; the line that moved it is not applied yet."""
    monkeypatch.setattr(bus, "_PAGE_SIZES", (2, 16))
    async with cluster("A", "B") as play:
        await _stored_and_purged(play)
        for number in range(2, 8):
            await play["B"].cache.invalidate(f"item:{number}")
        play.stage.hold("C.page.reply", "C.message")
        await play.joins("C")
        play.stage.open("C.page.reply")
        await play.settled()
        assert 0 < play["C"].replica.floor < 7
        play.stage.free("C.page.reply")
        play.stage.hold("C.page.ask")
        await play.settled()
        await play.purges("B")
        await play.settled()
        play.stage.free("C.page.ask")
        await play.settled()
        reading = await play.read("C")
        assert reading.value == NEW
        play.stage.free_all()
        await play.settled()
        await play.all_new()


async def test_a_purge_applied_while_the_page_is_on_its_way_is_not_undone_by_it(cluster: Make) -> None:
    """The page was taken before the purge and comes after its message: the later number stands."""
    async with cluster("A", "B") as play:
        await _stored_and_purged(play)
        play.stage.hold("C.page.reply")
        await play.joins("C")
        again = await play.purges("B")
        await play.settled()
        play.stage.free("C.page.reply")
        await play.settled()
        replica = play["C"].replica
        assert (replica.cells[play.tag][0], replica.floor) == (again.seq, 0)
        await play.all_new()


async def test_a_soft_purge_on_the_page_makes_stale_and_a_hard_one_before_it_is_not_hidden(cluster: Make) -> None:
    """Both kinds are remembered apart, on the page as in the map."""
    async with cluster("A", "B", stale_while_revalidate=9_000) as play:
        await play.read("A")
        await play.purges("B", soft=True)
        await play.settled()
        await play.joins("C")
        play.stage.hold("C.has-read")
        assert (await play.read("C")).how == "stale"
        play.stage.free("C.has-read")
        await play.settled()
        play.path = "/item/2"
        await _stored_and_purged(play)
        await play.purges("B", soft=True)
        await play.settled()
        await play.joins("D")
        reading = await play.read("D")
        assert (reading.value, reading.how) == (NEW, "forwarded")


@pytest.mark.parametrize("gate", ["C.page.ask", "C.page.reply"])
async def test_a_page_of_a_term_that_has_ended_is_not_used(cluster: Make, gate: str) -> None:
    """A new term opens while a page is learned: its numbers say nothing about the old one's."""
    async with cluster("A", "B") as play:
        await _stored_and_purged(play)
        for number in range(2, 5):
            await play["B"].cache.invalidate(f"item:{number}")
        play.stage.hold(gate)
        await play.joins("C")
        play.stage.held.clear()
        before = play["C"].replica.term
        play.server.client.flushall()
        play.beats("A", "B")
        await play.settled()
        await play.read("A")
        await play.purges("B")
        play.beats("C")
        await play.settled()
        replica = play["C"].replica
        assert replica.term.number == before.number + 1
        cells = {tag: cell[0] for tag, cell in replica.cells.items()}
        for label in list(play.stage.parked):
            play.stage.open(label)
        await play.settled()
        assert cells == {tag: cell[0] for tag, cell in replica.cells.items()}
        assert cells == {tag: cell[0] for tag, cell in play["A"].replica.cells.items()}
        await play.all_new()


async def test_a_fill_of_its_own_that_began_before_it_had_learned_stays_usable(cluster: Make) -> None:
    """Its stamp is of the number that it joined at; pages only add what was purged before that."""
    async with cluster("A", "B") as play:
        await _stored_and_purged(play)
        play.stage.hold("C.page.reply", "F.has-read")
        await play.joins("C")
        fill = play.reads("F", "C")
        await play.settled()
        play.stage.free("C.page.reply")
        await play.settled()
        play.stage.free("F.has-read")
        await play.settled()
        assert (fill.value, fill.how) == (NEW, "forwarded")
        assert (await play.read("C")).how == "hit"
        assert play.forwards == 2
