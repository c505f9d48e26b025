"""The laws of what is kept for a CDN: nothing is lost, hard wins over soft, and memory is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fastapi_cacheinval.contrib.cdn import Purge, Rate
from fastapi_cacheinval.contrib.cdn._entries import EVERYTHING, Entry, Order, entries_of
from fastapi_cacheinval.contrib.cdn._ledger import Ledger, Parcel
from fastapi_cacheinval.contrib.cdn._pacing import Backoff, Bucket

TAGS = st.sampled_from([f"tag-{number}" for number in range(12)])
PURGES = st.builds(
    Purge,
    st.lists(TAGS, min_size=1, max_size=5, unique=True).map(tuple),
    st.booleans(),
    st.sampled_from([False] * 9 + [True]),
)
MOST = 8
AGAIN = 5.0


class Ledgers(RuleBasedStateMachine):
    """A CDN that confirms, refuses and fails as it likes, against what it owes and has."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(MOST, AGAIN)
        self.now = 100.0
        # How old what the CDN keeps of each tag may be: it owes a purge, hard where `hard` says so.
        self.owed: dict[str, bool] = {}
        self.waiting: dict[Order, set[str]] = {}
        self.let_go: set[Order] = set()

    @rule(purge=PURGES, waits=st.booleans())
    def purged(self, purge: Purge, waits: bool) -> None:
        order = Order() if waits else None
        entries = entries_of(purge, order)
        if order is not None:
            order.left = len(entries)
            self.waiting[order] = set(entries)
        for tag in entries:
            self.owed[tag] = self.owed.get(tag, False) or not purge.soft
        self.ledger.add(entries, self.now)

    @rule(seconds=st.sampled_from([0.0, 1.0, AGAIN, 61.0, 4_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(fates=st.lists(st.sampled_from(["confirm", "fail", "park"]), min_size=30, max_size=30))
    def told(self, fates: list[str]) -> None:
        fate = iter(fates)
        taken = False
        for parcel in self.ledger.take(self.now):
            for tag, entry in parcel.entries.items():
                match next(fate, "fail"):
                    case "confirm":
                        self._confirm(parcel, tag, entry)
                        taken = True
                    case "park" if tag != EVERYTHING:
                        poison = self.ledger.park(tag, entry, "no", self.now, proof=taken, alone=parcel.alone)
                        self.let_go.update(entry.orders if poison is not None else ())
                    case _:
                        if not parcel.alone:
                            self.ledger.add({tag: entry}, self.now)

    def _confirm(self, parcel: Parcel, tag: str, entry: Entry) -> None:
        for order in self.ledger.confirmed({tag: entry}, self.now, alone=parcel.alone).orders:
            assert order in self.waiting
        hard = not entry.soft
        for owed in [tag] if tag != EVERYTHING else list(self.owed):
            if hard or not self.owed.get(owed, True):
                self.owed.pop(owed, None)

    @invariant()
    def nothing_is_lost(self) -> None:
        """What the CDN owes stands in the ledger, as hard as it is owed, or everything does."""
        kept = {**self.ledger._ready, **{tag: parked.entry for tag, parked in self.ledger._parked.items()}}
        whole = kept.get(EVERYTHING)
        for tag, hard in self.owed.items():
            entries = [entry for entry in (kept.get(tag), whole) if entry is not None]
            assert any(not entry.soft or not hard for entry in entries), (tag, hard, kept)

    @invariant()
    def memory_is_bounded(self) -> None:
        """Never more than `most` tags to be told, and as many to be told again."""
        assert self.ledger.waiting <= MOST
        assert sum(len(entries) for _, entries in self.ledger._later) <= MOST

    @invariant()
    def nobody_is_let_go_early(self) -> None:
        """An order with nothing left waits for no tag that is owed since."""
        for order in self.waiting:
            assert order.left >= 0


TestLedgers = Ledgers.TestCase


@given(purges=st.lists(PURGES, max_size=8))
def test_all_orders_are_settled_by_confirming_everything_once(purges: list[Purge]) -> None:
    """Each waits for exactly what it named, however things were merged."""
    ledger = Ledger(MOST, 0)
    orders = []
    for purge in purges:
        order = Order()
        entries = entries_of(purge, order)
        order.left = len(entries)
        orders.append(order)
        ledger.add(entries, 0)
    done: list[Order] = []
    count = 0
    for parcel in ledger.take(0):
        confirmed = ledger.confirmed(parcel.entries, 0)
        done += confirmed.orders
        count += confirmed.count
    assert set(done) == set(orders)
    assert len(done) == len(orders)
    assert count == sum(1 if purge.everything else len(purge.tags) for purge in purges)
    assert ledger.due() is None


def test_each_is_told_again_once() -> None:
    """After `again_after`, with nobody waiting for it, and not a third time."""
    ledger = Ledger(MOST, AGAIN)
    ledger.add(entries_of(Purge(("a",))), 0)
    (first,) = ledger.take(0)
    ledger.confirmed(first.entries, 1)
    assert ledger.due() == 1 + AGAIN
    assert ledger.take(AGAIN) == []
    (second,) = ledger.take(1 + AGAIN)
    assert second.purge == Purge(("a",))
    assert ledger.confirmed(second.entries, 7).count == 0
    assert ledger.due() is None


@given(
    rate=st.builds(Rate, st.floats(0.01, 1_000), st.integers(1, 50)),
    steps=st.lists(st.floats(0, 10), max_size=60),
)
def test_the_bucket_never_gives_more_than_its_rate(rate: Rate, steps: list[float]) -> None:
    """In any time: the burst and what has come since; and who waits as long as it says gets one."""
    bucket = Bucket(rate)
    now = 0.0
    for given_out, step in enumerate(steps, start=1):
        now += step
        wait = bucket.take(now)
        if wait:
            now += wait
            assert bucket.take(now) == 0
        assert given_out <= rate.burst + now * rate.per_second + 1e-3


@given(chances=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=40), slow=st.booleans())
def test_pauses_grow_and_end(chances: list[float], slow: bool) -> None:
    """From the first to the longest, spread; what a CDN says is obeyed, up to an hour."""
    backoff = Backoff()
    first, longest = (5.0, 60.0) if slow else (0.5, 30.0)
    for number, chance in enumerate(chances):
        most = min(first * 2**number, longest)
        assert most / 2 <= backoff.pause(after=None, slow=slow, chance=chance) <= most
    assert 90 <= backoff.pause(after=90, slow=slow, chance=chances[0]) <= 99.1
    assert backoff.pause(after=1e12, slow=slow, chance=0) == 3_600
    backoff.well()
    assert backoff.pause(after=None, slow=slow, chance=0) == first
