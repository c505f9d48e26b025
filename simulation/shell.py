"""The shell of a replica in the simulation: what it asks the log, when, and what it does with the answers.

The rules are those of the real one: a heartbeat every third of the bound, or later while messages come, at once where
the state machine says so, on each subscription and after each reset; a purge is written line by line, and applied
before it is acknowledged; one that fails is fenced, queued and retried; after a reset the log's purged tags are read
page by page; what was purged of late is purged again in a new term.
"""

from __future__ import annotations

from functools import partial
from math import inf

from fastapi_cacheinval.core.backlog import Backlog, Due, Recent
from fastapi_cacheinval.core.log_types import Current, Missed, Next, Page, Reply, Reset
from fastapi_cacheinval.core.pieces import in_pieces
from fastapi_cacheinval.core.tags import ALL
from simulation.fencing import Purge
from simulation.joining import Joining
from simulation.node import Unconfirmed, WrittenLine
from simulation.plan import BOUND
from simulation.world import World

__all__ = ["Shell"]

Answer = tuple[Reply, WrittenLine | None]


class Shell(Joining):
    """One process's side towards the log."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.offset = 0.0
        self.begin()

    def begin(self) -> None:
        """A new process: nothing is known, and its clock has nothing to do with those of others."""
        world = self.world
        self.epoch += 1
        self.alive = True
        self.uid = f"{self.name}.{self.epoch}"
        self.offset = world.draws.between(0.0, 10_000.0)
        self.replica = world.ablation.replica(
            staleness_bound=BOUND,
            stale_when_disconnected=world.plan.stale_when_disconnected,
            most_cells=world.plan.most_cells,
        )
        self.recent = Recent()
        self.backlog = Backlog(most_entries=world.plan.most_entries, most_tags=8)
        self.fences = {}
        self._asking = 0
        self._ask_again = False
        self._draining = False
        # Purges that are written, of which not all has been read.
        self._unread: list[Purge] = []
        self._pages = 0
        self._unlearned: Page | None = None
        # Lines that are applied here, and whose writers wait to be told.
        self._owed: list[WrittenLine] = []
        # Lines of this process for which it waits, and those of which the word has come before the reply.
        self.expected: dict[str, tuple[WrittenLine, ...]] = {}
        self.early: set[str] = set()
        # The last line of the replica's term that the truth knows it to have taken in, and the last that came.
        self._noted = 0
        self._heard_at = -inf
        self._latest = 0

    def subscribed(self) -> None:
        """Ask for what was before, and write what could not be written."""
        self.ask()
        self.drain()

    # -- reading the log --------------------------------------------------------------------------

    def tick(self) -> None:
        """The heartbeat."""
        world = self.world
        flowing = world.now - self._heard_at < BOUND / 3
        world.push(world.now + (0.45 if flowing else 1 / 3) * BOUND, self, self.tick)
        self.ask()
        self.drain()

    def ask(self) -> None:
        """Ask the log what there is."""
        if self._asking and self.world.plan.coalesced_asks:
            self._ask_again = True
            return
        self._asking += 1
        owed = tuple(self._owed)
        asked = (self.uid, self.replica.ask(), None, owed)
        self.request(
            self.world.cluster.script,
            asked,
            self._answered,
            self._unanswered,
            (owed,),
            late=self._took,
            writes=True,
        )

    def _answered(self, result: Answer, sent: float, owed: tuple[WrittenLine, ...]) -> None:
        self._owed = [line for line in self._owed if line not in owed]
        self._took(result, sent)
        self._asked()

    def _unanswered(self, owed: tuple[WrittenLine, ...]) -> None:
        unread, self._unread = self._unread, []
        for purge in unread:
            purge.failed()
        self._asked()

    def _asked(self) -> None:
        self._asking -= 1
        if self._ask_again:
            self._ask_again = False
            self.ask()

    def _took(self, result: Answer, sent: float) -> None:
        """Take a reply."""
        world, replica, reply = self.world, self.replica, result[0]
        generation, term = replica.generation, replica.term
        confirmed = not isinstance(result, Unconfirmed)
        following = replica.apply_reply(reply, sent + self.offset, world.now + self.offset, lease=confirmed)
        if world.trace is not None and not isinstance(reply, Current):
            world.tell(self.name, f"was answered {_told(reply)}, asked at {sent:.6f}; {replica!r} {following.value}")
        if term.number and replica.term != term:
            # The server that numbered them may not have been the one that goes on.
            for tags, soft in self.recent.take(world.now + self.offset):
                world.counts["purges written again"] += 1
                self.queue(tags, soft=soft, fence=None if soft else self.fence(tags))
        if isinstance(reply, Missed):
            for line in reply.lines:
                self._take_in(line)  # type: ignore[arg-type]
        if following is Next.ASK:
            world.counts["replies that make ask again"] += 1
            self.ask()
        elif isinstance(reply, Reset) and replica.generation != generation:
            world.counts["resets"] += 1
            self._noted = reply.seq
            self.ask()
            self._turn_pages()
        elif self._unlearned is not None:
            self._learn(self._unlearned)
        self._read()

    def hear(self, message: WrittenLine | str) -> None:
        """A message has come: the next line, a reason to ask, or the word that all others have applied one."""
        world, replica = self.world, self.replica
        if isinstance(message, str):
            self.applied_by_all(message)
            return
        line = message
        self._heard_at = world.now
        if line.seq < self._latest:
            world.counts["messages out of order"] += 1
        self._latest = line.seq
        following = replica.apply_message(line, world.now + self.offset)
        if world.trace is not None:
            world.tell(self.name, f"heard line {line.term.number}/{line.seq}; {replica!r} {following.value}")
        self._take_in(line)
        self._read()
        if following is Next.ASK or line.prompt:
            self.ask()

    def applied_by_all(self, nonce: str) -> None:
        """All others that held a lease have applied a line of this process."""

    def _take_in(self, line: WrittenLine) -> None:
        """Tell the truth of a line that the replica says it has applied."""
        world, replica = self.world, self.replica
        there = line.term == replica.term and line.seq <= replica.applied
        if line.waiter not in ("", self.uid) and (there or not world.ablation.applied_first):
            self._owed.append(line)
        if there and self._noted < line.seq:
            self._noted = line.seq
            if line.heard_by is not None:
                # Unless it is confirmed, nobody has been promised anything about what others fill.
                line.heard_by.append(self.memory)
            written = line.written if line.heard_by is None else -inf
            world.truth.applied(self.memory, line.tags, written, world.step, world.now, soft=line.soft)

    # -- purges -----------------------------------------------------------------------------------

    def purge(self, purge: Purge) -> None:
        """Write a purge, and say what became of it."""
        limit = self.world.plan.line_tags
        self._put(purge._replace(left=tuple(in_pieces(purge.tags, limit)), lines=()))

    def _put(self, purge: Purge) -> None:
        last = len(purge.left) == 1
        asked = (self.uid, self.replica.ask(), (purge.left[0], purge.soft, self.uid if purge.prompt and last else ""))
        self.request(self.world.cluster.script, asked, self._written, self._not_written, (purge,), writes=True)

    def _written(self, result: Answer, sent: float, purge: Purge) -> None:
        self._took(result, sent)
        line = result[1]
        assert line is not None
        written = purge._replace(left=purge.left[1:], lines=(*purge.lines, line))
        if line.term != written.lines[0].term:
            # What the server of the first line has numbered, this one may not have.
            self._in_vain(purge)
        elif written.left:
            self.world.counts["purges of several lines"] += not purge.lines
            if not self.world.ablation.whole:
                self._done(written)
                written = written._replace(done=_nothing, failed=_nothing)
            self._put(written)
        else:
            self._unread.append(written)
            if written.lines[-1].seq > self.replica.applied:
                self.world.counts["own lines read later"] += 1
                self.ask()
            self._read()

    def _read(self) -> None:
        """Those purges are done whose last line has been read."""
        replica = self.replica
        unread, self._unread = self._unread, []
        for purge in unread:
            line = purge.lines[-1]
            if line.term != replica.term:
                # In this term it is not known to be there.
                self._in_vain(purge)
            elif line.seq > replica.applied:
                self._unread.append(purge)
            else:
                self._done(purge)

    def _done(self, purge: Purge) -> None:
        world = self.world
        for line in purge.lines:
            world.truth.numbered(self.memory, line.tags, line.written, world.now, soft=purge.soft)
        self.recent.add(purge.tags, soft=purge.soft, now=world.now + self.offset)
        purge.done(purge.lines)

    def _in_vain(self, purge: Purge) -> None:
        if purge.tries > 1:
            self.purge(purge._replace(tries=purge.tries - 1))
        else:
            purge.failed()

    @staticmethod
    def _not_written(purge: Purge) -> None:
        purge.failed()

    def drain(self) -> None:
        """Write the first of what is queued."""
        due = None if self._draining else self.backlog.due()
        if due is not None:
            self._draining = True
            done, failed = partial(self._drained, due), partial(self._not_drained, due)
            self.purge(Purge(due.tags, done, failed, soft=due.soft))

    def _not_drained(self, due: Due) -> None:
        self._draining = False
        self.backlog.postpone(due)

    def _drained(self, due: Due, lines: tuple[WrittenLine, ...]) -> None:
        self._draining = False
        world, memory = self.world, self.memory
        for handle in self.backlog.written(due):
            self.lift(handle)
        for key, fenced in enumerate(memory.fenced):
            if not fenced:
                memory.numbered[key] = memory.acked[key]
        world.counts["queued purges written"] += len(due.entries)
        if due.tags == (ALL,):
            world.counts["purges of everything"] += 1
        self.drain()


def _nothing(*_: object) -> None:
    """What is done already is not told again."""


def _told(reply: Reply) -> str:
    if isinstance(reply, Missed):
        return f"lines {', '.join(f'{line.term.number}/{line.seq}' for line in reply.lines)}"
    return repr(reply)
