"""What one CDN has still to be told: kept, merged and bounded, without any I/O; time is an argument."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from fastapi_cacheinval.contrib.cdn._entries import (
    EVERYTHING,
    Entries,
    Entry,
    Order,
    collapse,
    entries_of,
    merge,
    settled,
)
from fastapi_cacheinval.contrib.cdn.requests import Purge
from fastapi_cacheinval.sources import KEEP, Change, Unread

__all__ = ["Confirmed", "Ledger", "Parcel", "Poison"]

# Seconds between two attempts at a tag that the CDN refuses.
_FIRST_REST, _LONGEST_REST = 60.0, 3_600.0


@dataclass(frozen=True, slots=True)
class Parcel:
    """Entries that go to the CDN together: all soft, or all hard; or one by itself, in `alone`, that it refused."""

    entries: Entries
    soft: bool
    alone: bool = False

    @property
    def purge(self) -> Purge:
        """What it asks for."""
        if EVERYTHING in self.entries:
            return Purge(soft=self.soft, everything=True)
        return Purge(tuple(self.entries), self.soft)


@dataclass(slots=True)
class _Parked:
    """A tag that the CDN refuses by itself: `proof` once it took another, `reported` if this was refused after that."""

    entry: Entry
    due: float
    rest: float = _FIRST_REST
    proof: bool = False
    reported: bool = False


@dataclass(frozen=True, slots=True)
class Poison:
    """A tag that the CDN refuses while it takes others, and the orders that have nothing else to wait for."""

    tag: str
    reason: str
    first: bool
    count: int
    done: list[Order]


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What a confirmation settles: so many purges of tags, and the orders that have nothing left to wait for."""

    count: int
    orders: list[Order]


@dataclass(slots=True)
class Ledger:
    """What one CDN has still to be told; past `most` tags it becomes one purge of everything, never a loss.

    What is to be told once more is bounded in the same way, by itself.

    `again_after` is the time in seconds after which it is told once more; 0 for never.
    """

    most: int
    again_after: float
    collapsed: int = 0
    final: bool = False
    _ready: Entries = field(default_factory=Entries)
    _later: deque[tuple[float, Entries]] = field(default_factory=deque[tuple[float, Entries]])
    _parked: dict[str, _Parked] = field(default_factory=dict[str, _Parked])

    @property
    def waiting(self) -> int:
        """How many tags the CDN has not confirmed, those that are under way left out."""
        return len(self._ready) + len(self._parked)

    def add(self, entries: Mapping[str, Entry], now: float) -> None:
        """Take entries: new ones, or those that could not be told."""
        self._take_in(entries, now)
        self._bound()

    def _take_in(self, entries: Mapping[str, Entry], now: float) -> None:
        fresh = dict(entries)
        for tag in self._parked.keys() & fresh.keys():
            # By itself again, or it would take others with it; but now.
            parked = self._parked[tag]
            parked.entry = parked.entry.merged(fresh.pop(tag))
            parked.due = now
        merge(self._ready, fresh)

    def _bound(self) -> None:
        if self.waiting > self.most:
            self.collapsed += 1
            merge(self._ready, {tag: parked.entry for tag, parked in self._parked.items()})
            self._parked.clear()
            collapse(self._ready)
        if sum(len(entries) for _, entries in self._later) > self.most:
            whole: Entries = {}
            latest, _ = self._later[-1]
            for _, entries in self._later:
                merge(whole, entries)
            collapse(whole)
            self._later = deque([(latest, whole)])

    def due(self) -> float | None:
        """When there is something to tell, in the past where it is now; None where there is nothing."""
        if self._ready:
            return float("-inf")
        times = [parked.due for parked in self._parked.values()]
        if self._later:
            times.append(self._later[0][0])
        return min(times, default=None)

    def take(self, now: float) -> list[Parcel]:
        """What is to be told now; it has to be confirmed, parked or added again."""
        while self._later and self._later[0][0] <= now + 1e-6:
            self._take_in(self._later.popleft()[1], now)
        ready, self._ready = self._ready, {}
        whole = ready.pop(EVERYTHING, None)
        parcels = [] if whole is None else [Parcel({EVERYTHING: whole}, whole.soft)]
        for soft in (False, True):
            entries = {tag: entry for tag, entry in ready.items() if entry.soft is soft}
            if entries:
                parcels.append(Parcel(entries, soft))
        for tag, parked in self._parked.items():
            if parked.due <= now:
                # It stays parked until it is confirmed.
                parked.due = now + parked.rest
                parcels.append(Parcel({tag: parked.entry}, parked.entry.soft, alone=True))
        return parcels

    def hasten(self, now: float) -> None:
        """Make all that is planned for later due now, and plan nothing more."""
        self.final = True
        while self._later:
            self._take_in(self._later.popleft()[1], now)
        for parked in self._parked.values():
            parked.due = now

    def pressing(self, now: float) -> bool:
        """Whether there is something to tell, now or, for the first or second time, later."""
        return bool(self._ready or self._later) or any(parked.due <= now for parked in self._parked.values())

    def confirmed(self, entries: Mapping[str, Entry], now: float, *, alone: bool = False) -> Confirmed:
        """The CDN has done it."""
        if alone:
            entries = {tag: self._unparked(tag, entry) for tag, entry in entries.items()}
        for parked in self._parked.values():
            if not parked.proof:
                # What it refused may have been refused with everything else: asked again at once, that is known.
                parked.proof, parked.due = True, now
        if self.again_after > 0 and not self.final:
            later = {tag: Entry(entry.soft, 0, again=False) for tag, entry in entries.items() if entry.again}
            if later:
                self._later.append((now + self.again_after, later))
                self._bound()
        return Confirmed(
            sum(entry.count for entry in entries.values()),
            settled(order for entry in entries.values() for order in entry.orders),
        )

    def _unparked(self, tag: str, sent: Entry) -> Entry:
        parked = self._parked.get(tag)
        if parked is None or parked.entry is not sent:
            # Purged anew while it was under way: that has still to be told.
            return Entry(sent.soft, 0, again=sent.again)
        del self._parked[tag]
        return sent

    def park(self, tag: str, entry: Entry, reason: str, now: float, *, proof: bool, alone: bool) -> Poison | None:
        """The CDN refuses this tag by itself: it is kept, and tried by itself, less and less often.

        With `proof` it has just taken another: this one is asked for once more at once, before it is reported. `alone`
        is whether it was asked for by itself.
        A `Poison` where it is known to take others: whoever waits for it waits no longer.
        """
        parked = self._parked.get(tag)
        if parked is None and alone:
            # Everything is to be purged since, and has taken over who waits for it.
            return None
        if parked is None:
            anew = self._ready.pop(tag, None)
            due = now if proof else now + _FIRST_REST
            self._parked[tag] = _Parked(entry if anew is None else entry.merged(anew), due, proof=proof)
            self._bound()
            return None
        if parked.entry is not entry:
            parked.due = now
            return None
        parked.due = now + parked.rest
        parked.rest = min(parked.rest * 2, _LONGEST_REST)
        if not parked.proof:
            return None
        poison = Poison(tag, reason, not parked.reported, entry.count, settled(entry.orders))
        parked.reported = True
        parked.entry = Entry(entry.soft, 0, again=entry.again)
        return poison

    def answered(self, tag: str, answer: Change | Unread | None, now: float) -> None:
        """What is to become of a tag that was reported: None reports it again, once it is refused again."""
        parked = self._parked.get(tag)
        if parked is None or answer is KEEP:
            return
        if answer is None:
            parked.reported = False
            return
        del self._parked[tag]
        if isinstance(answer, Change):
            self.add(entries_of(Purge(answer.tags, answer.soft, answer.everything)), now)
