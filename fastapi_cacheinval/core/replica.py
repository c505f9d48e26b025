"""One replica's view of the purge log, as a pure state machine: messages and replies in, what to do next out.

A purge is a numbered line in a log. Every stored response carries the `Stamp` that says up to which
line its fill had read. The rules, which everything below obeys:

- a line is applied only when it is the next one; a gap, a later term or a doubt asks the log;
- the lease is renewed only by a reply that was applied whole and up to the end of the log, from the moment its request
  was sent;
- only what was asked for after the last answer had come leads to another term, or makes everything forgotten;
- a response is handed over only under a live lease, of the same generation, and with no hard purge
  and no fence of its tags after its stamp; a soft purge after it makes it stale;
- a number seen with another nonce, or a later term, makes everything from before unusable;
- what was purged before this replica joined is unknown, and with it everything from before, until it is learned.

Times are seconds of the replica's own clock, which must count suspension, and come in as arguments.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from math import inf

from fastapi_cacheinval.core.fences import Fences
from fastapi_cacheinval.core.log_types import Ask, LogEntry, Missed, Next, Page, Reply, Reset, Term
from fastapi_cacheinval.core.stored import Stamp

__all__ = ["LogEntry", "Replica"]

# The last purges of one tag, hard and soft apart, since a soft one must not hide a hard one: the number of the last
# hard one, that of the last soft one, and when that was applied. It is a plain tuple for the garbage collector, which
# does not look through those, and would stop the process for a hundred thousand objects.
Cell = tuple[int, int, float]
_UNTOUCHED: Cell = (-1, -1, inf)

# How many nonces of applied lines are remembered, to recognise a number that was written again.
_REMEMBERED = 256


class Replica:
    """What this replica knows of the log, and the one check that every hand-over passes.

    `staleness_bound` is the length of a lease in seconds, `stale_when_disconnected` how long after
    it a response may still be handed over, `most_cells` how many purged tags are remembered.
    `changes` counts what could concern a stored response: while it stands, nothing can have. `mark` is the
    first three parts of the stamp of a fill that begins now, ready made because every request takes it.
    """

    __slots__ = (
        "_fences",
        "_most_cells",
        "_recent",
        "_told",
        "applied",
        "bound",
        "cells",
        "changes",
        "fence_count",
        "floor",
        "generation",
        "heard_to",
        "lease_until",
        "mark",
        "nonce",
        "stale_when_disconnected",
        "term",
    )

    def __init__(
        self,
        *,
        staleness_bound: float,
        stale_when_disconnected: float = 0.0,
        most_cells: int = 200_000,
    ) -> None:
        self.bound = staleness_bound
        self.stale_when_disconnected = stale_when_disconnected
        self._most_cells = most_cells
        self.term = Term(0, "")
        self.applied = 0
        self.nonce = ""
        self.generation = 0
        self.floor = 0
        # The last number of this term that this replica knows to exist.
        self.heard_to = 0
        self.lease_until = -inf
        # When the last answer came that was applied whole.
        self._told = -inf
        self.changes = 0
        self.fence_count = 0
        self.mark = (0, 0, 0)
        self.cells: OrderedDict[str, Cell] = OrderedDict()
        self._recent: OrderedDict[int, str] = OrderedDict()
        self._fences = Fences()

    def __repr__(self) -> str:
        return f"<Replica term {self.term.number} applied {self.applied} generation {self.generation}>"

    # -- reading the log ------------------------------------------------------------------------

    def ask(self) -> Ask:
        """What to send with a heartbeat or a purge."""
        return Ask(self.term, self.applied, self.nonce)

    def apply_message(self, line: LogEntry, now: float) -> Next:
        """Take a message, which may be lost, late, doubled or out of order."""
        if line.term.number < self.term.number:
            return Next.NOTHING
        if line.term != self.term:
            return Next.ASK
        self.heard_to = max(self.heard_to, line.seq)
        if line.seq <= self.applied:
            known = self._recent.get(line.seq, self.nonce if line.seq == self.applied else None)
            if known is not None and known != line.nonce:
                self._distrust()
                return Next.ASK
            return Next.NOTHING
        if line.seq > self.applied + 1:
            return Next.ASK
        self._apply(line, now)
        return Next.NOTHING

    def apply_reply(self, reply: Reply, sent: float, now: float, *, lease: bool = True) -> Next:
        """Take the log's reply to what was asked at `sent`; only one applied whole renews the lease, where it may."""
        if reply.term.number < self.term.number:
            return Next.NOTHING
        if reply.term != self.term and sent < self._told:
            # Asked for before the answer that holds now had come: it may be of a life of the log that ended before.
            return Next.ASK
        if isinstance(reply, Reset):
            # What was asked before a later reply came makes nothing forgotten that was learned since.
            if reply.term == self.term and reply.seq < self.applied:
                return Next.NOTHING
            if reply != Reset(self.term, self.applied, self.nonce) and not self._reset(reply, sent, follows=lease):
                return Next.ASK
        elif reply.term != self.term:
            self._distrust()
            return Next.ASK
        elif isinstance(reply, Missed):
            for line in reply.lines:
                if self.apply_message(line, now) is Next.ASK:
                    return Next.ASK
            if reply.more:
                self._told = now
                return Next.ASK
        if lease:
            self.lease_until = max(self.lease_until, sent + self.bound)
        self._told = now
        return Next.NOTHING

    def _apply(self, line: LogEntry, now: float) -> None:
        cells = self.cells
        for tag in line.tags:
            # Never out of the map, not for a moment: another thread may be checking a response.
            hard, soft, soft_at = cells.get(tag, _UNTOUCHED)
            cells[tag] = (hard, line.seq, now) if line.soft else (line.seq, soft, soft_at)
            cells.move_to_end(tag)
        while len(cells) > self._most_cells:
            # The floor first: in between, another thread may find neither the cell nor the floor.
            self.floor = max(self.floor, *next(iter(cells.values()))[:2])
            cells.popitem(last=False)
        self.applied, self.nonce = line.seq, line.nonce
        self._recent[line.seq] = line.nonce
        if len(self._recent) > _REMEMBERED:
            self._recent.popitem(last=False)
        self._changed()

    def _reset(self, reply: Reset, sent: float, *, follows: bool) -> bool:
        """Forget everything, unless the reply is about what has been forgotten since it was asked for."""
        # Who does not follow the log learns by this alone how far its own purges have come.
        if follows and reply.term == self.term and sent < self._told:
            # From where this replica is now the log may be readable.
            self.heard_to = max(self.heard_to, reply.seq)
            return False
        self._forget_responses()
        self.term, self.applied, self.nonce = reply.term, reply.seq, reply.nonce
        self.floor = self.heard_to = reply.seq
        self.cells.clear()
        self._recent.clear()
        self._changed()
        return True

    def apply_page(self, page: Page, now: float) -> bool:
        """Take what the log remembers from before this replica joined; whether the next older page is of use.

        Pages have to come from the floor downwards without a hole, or they are refused. It makes responses usable
        that others have stored, never one that is not: what has been purged again since has left the span, so all
        that the log had when the page was read must have been applied, and all of the span must have been there.
        """
        cells = self.cells
        if not page.up_to <= page.seq <= self.applied:
            return False
        fits = len(cells) + len(page.purged) <= self._most_cells
        if page.term != self.term or page.up_to != self.floor or page.down_to >= self.floor or not fits:
            return False
        for tag, seq, soft in sorted(page.purged, key=lambda purge: -purge[1]):
            known = tag in cells
            hard, last_soft, soft_at = cells.get(tag, _UNTOUCHED)
            if not soft:
                cells[tag] = (max(hard, seq), last_soft, soft_at)
            elif seq > last_soft:
                cells[tag] = (hard, seq, now)
            if not known:
                # The oldest are let go of first.
                cells.move_to_end(tag, last=False)
        # Last of all: until then another thread refuses what the page is about.
        self.floor = page.down_to
        return True

    def let_go(self) -> None:
        """Give up the lease, so that nobody has to wait for this replica."""
        self.lease_until = -inf

    def _distrust(self) -> None:
        """What was read and what is there do not meet: nothing kept can be proved until the log says so."""
        self.lease_until = -inf
        self._forget_responses()

    def _forget_responses(self) -> None:
        self.generation += 1
        self._changed()

    def _changed(self) -> None:
        """Last of all in every change: who has read the new count or mark must find what it stands for."""
        self.mark = (self.generation, self.applied, self.fence_count)
        self.changes += 1

    @property
    def lag(self) -> int:
        """How many lines of this term are known to exist and are not applied."""
        return self.heard_to - self.applied

    # -- purges that have no number yet ---------------------------------------------------------

    def fence(self, tags: Collection[str]) -> int:
        """Make unusable what was filled before this moment under these tags; the handle lifts it."""
        self.fence_count = self._fences.add(tags)
        self._changed()
        return self.fence_count

    def lift(self, fence: int) -> None:
        """End a fence, once its purge has a number and has been applied."""
        self._fences.lift(fence)

    @property
    def fences(self) -> int:
        """How many fences stand."""
        return len(self._fences)

    def fenced(self, tags: Iterable[str]) -> bool:
        """Whether any of the tags is fenced: then nothing from elsewhere, and no one else's fill, is taken."""
        return bool(self._fences.last) and self._fences.any_of(tags)

    # -- what may be handed over ----------------------------------------------------------------

    def stamp(self, now: float) -> Stamp:
        """What a fill that begins now has read."""
        return Stamp(*self.mark, now)

    def adopt(self, term: Term, as_of: int, now: float) -> Stamp | None:
        """The stamp, here, of a response that another replica has filled; None where it proves nothing.

        Only under a live lease, asked when the response arrives: so long the map of purged tags is known to be whole.
        Its fill began before every fence of this replica.
        """
        if term != self.term or now >= self.lease_until:
            return None
        return Stamp(self.generation, as_of, 0, -inf)

    def live(self, now: float) -> bool:
        """Whether the lease says that this replica has read the log."""
        return now < self.lease_until

    def stale_from(self, stamp: Stamp, tags: tuple[str, ...], now: float) -> float | None:
        """From when on a response counts as stale by soft purges (inf: untouched); None where it may not be used.

        Without a live lease only a fill of this replica that began within the bound may go out, or what
        `stale_when_disconnected` allows. What `adopt` has stamped began long before.
        """
        if stamp.generation != self.generation or stamp.as_of < self.floor:
            return None
        if now >= self.lease_until:
            young = now - stamp.began < self.bound
            if not young and now >= self.lease_until + self.stale_when_disconnected:
                return None
        stale_from = inf
        cells, fences = self.cells, self._fences.last
        as_of = stamp.as_of
        for tag in tags:
            cell = cells.get(tag)
            if cell is not None:
                hard, soft, soft_at = cell
                if hard > as_of:
                    return None
                if soft > as_of and soft_at < stale_from:
                    stale_from = soft_at
            if fences and fences.get(tag, -1) > stamp.fence:
                return None
        return stale_from
