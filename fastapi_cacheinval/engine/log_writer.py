"""Writing purges to a shared log, on one event loop, and what the loops of one process share.

The rules: a purge is done when all its lines stand in one term and this replica has applied them there, and until then
it is not; what could not be written waits in one queue for the process, fenced, and is written by whichever loop can.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from operator import attrgetter

from fastapi_cacheinval.core.backlog import Backlog, Due, Recent
from fastapi_cacheinval.core.log_types import LogEntry, Reply
from fastapi_cacheinval.core.replica import Replica
from fastapi_cacheinval.core.tags import ALL
from fastapi_cacheinval.engine.clocks import ClockEstimate
from fastapi_cacheinval.engine.log_observer import Applies, LogObserver
from fastapi_cacheinval.errors import LogUnavailable
from fastapi_cacheinval.ports.clock import Clock
from fastapi_cacheinval.ports.log import Answer, Proposal

__all__ = ["LogWriter", "Shared", "in_one_term"]

_MOST_WRITES = 3
_MOST_CAUSES = 1_000
_MOST_LINKED = 16
_MOST_UNREAD = 256


class Shared:
    """What the followers of one process share: its replica, its purges without a number, its id in the log."""

    def __init__(
        self, replica: Replica, observer: LogObserver, identity: str, server_clock: ClockEstimate | None = None
    ) -> None:
        self.replica = replica
        self.observer = observer
        self.server_clock = ClockEstimate() if server_clock is None else server_clock
        self.identity = identity
        self.backlog = Backlog()
        self.recent = Recent()
        # The trace context of each queued purge, by its entry.
        self._causes: dict[int, tuple[tuple[str, str], ...]] = {}
        # Those who hold up its lease, and whether anybody ever has: without a lease young responses are of use.
        self.serving: set[object] = set()
        self.served = False
        # Whether a follower without a lease has written a purge that waits for all, and so for this replica too.
        self.waits_for_itself = False
        # Fences for purges that were written past all followers, each with the line until which it stands.
        self._unread: dict[int, LogEntry] = {}
        # Several event loops, each in a thread of its own, may follow for one replica.
        self.lock = threading.Lock()

    @contextmanager
    def obeying(self, proposal: Proposal, clock: Clock) -> Generator[Callable[[LogEntry], None]]:
        """Have what this process serves obey a purge that no follower writes; each of its lines is to be given.

        A follower may be on a loop that does not run, and none reads for it. What the lines do not follow on is fenced
        until one has read as far. A purge that fails leaves nothing behind.
        """
        last: LogEntry | None = None

        def written(line: LogEntry) -> None:
            nonlocal last
            with self.lock:
                self._apply(line, clock.now())
            last = line

        with self.lock:
            fence = self.replica.fence(proposal.tags) if self.served and not proposal.soft else None
        try:
            yield written
        except BaseException:
            last = None
            raise
        finally:
            with self.lock:
                if last is not None:
                    # Another thread may have closed the gap meanwhile.
                    self._apply(last, clock.now())
                if last is not None and self.served and not self.has_read(last):
                    self._until_read(last, self.replica.fence(proposal.tags))
                if fence is not None:
                    self.replica.lift(fence)

    def _apply(self, line: LogEntry, now: float) -> None:
        """Apply a line, and what now follows on it of those that other threads have written."""
        for each in sorted([line, *self._unread.values()], key=attrgetter("seq")):
            self.replica.apply_message(each, now)
        self.lift_read()

    def _until_read(self, line: LogEntry, fence: int) -> None:
        self._unread[fence] = line
        if len(self._unread) > _MOST_UNREAD:
            every = self.replica.fence((ALL,))
            for each in self._unread:
                self.replica.lift(each)
            self._unread = {every: line}

    def has_read(self, line: LogEntry) -> bool:
        """Whether the replica has applied a line, or is in a later term."""
        replica = self.replica
        return line.term.number < replica.term.number or (line.term == replica.term and line.seq <= replica.applied)

    def lift_read(self) -> None:
        """End the fences for lines that have been read by now; under the lock."""
        for fence, line in [*self._unread.items()]:
            if self.has_read(line):
                del self._unread[fence]
                self.replica.lift(fence)

    def anew(self) -> Shared:
        """The same for another process, without what is this one's."""
        return Shared(self.replica, self.observer, "", self.server_clock)

    def queue(self, tags: tuple[str, ...], *, soft: bool, now: float, trace: tuple[tuple[str, str], ...] = ()) -> None:
        """Have a purge written when the log can be reached; until then its tags are fenced; under the lock."""
        # A soft purge asks for stale answers; nothing has to be refused for it.
        fence = None if soft else self.replica.fence(tags)
        entry = self.backlog.add(tags, soft=soft, fence=fence, now=now)
        if trace:
            self._causes[entry] = trace
            if len(self._causes) > _MOST_CAUSES:
                del self._causes[next(iter(self._causes))]

    def causes(self, due: Due) -> tuple[tuple[str, str], ...]:
        """The trace context of what a line stands for, one after the other; of the first where they are many."""
        found = [self._causes[entry] for entry in due.entries[:_MOST_LINKED] if entry in self._causes]
        return tuple(pair for trace in found for pair in trace)


async def in_one_term(proposal: Proposal, put: Callable[[Proposal], Awaitable[LogEntry]]) -> LogEntry | None:
    """Write a purge line by line; the last line with all tags of the purge.

    None where the lines do not stand in one term: what the server of the first has numbered, another may not have.
    """
    line: LogEntry | None = None
    for piece in proposal.lines():
        term = None if line is None else line.term
        line = await put(piece)
        if term not in (None, line.term):
            return None
    return None if line is None else line._replace(tags=proposal.tags)


class LogWriter:
    """Writes purges by way of one follower.

    `ask` has the log asked and written to, and gives when that was sent; `take` applies what it says; `settle` asks and
    applies until there is nothing more, and tells whether that went well.
    """

    def __init__(
        self,
        shared: Shared,
        applies: Applies,
        clock: Clock,
        *,
        ask: Callable[[Proposal | None], Awaitable[tuple[Answer, float]]],
        take: Callable[[Reply, float, LogEntry | None], Awaitable[bool]],
        settle: Callable[[], Awaitable[bool]],
    ) -> None:
        self._shared = shared
        self._applies = applies
        self._clock = clock
        self._ask = ask
        self._take = take
        self._settle = settle
        # Those who wait for lines that they have written read what was before them together.
        self._reading = asyncio.Lock()
        # One for each purge that is being written.
        self._writes: set[asyncio.Future[None]] = set()

    async def write(self, proposal: Proposal) -> LogEntry:
        """Write one purge, and apply it; raises `LogUnavailable` where that could not be brought to its end."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._writes.add(written)
        try:
            with self._applies.writing():
                return await self._write(proposal)
        finally:
            self._writes.discard(written)
            written.cancel()

    async def _write(self, proposal: Proposal) -> LogEntry:
        for _ in range(_MOST_WRITES):
            began = self._clock.now()
            line = await in_one_term(proposal, self._put)
            # Another loop of this process may serve, and not run now.
            if line is not None and (not self._shared.serving or await self._applied(line)):
                with self._shared.lock:
                    self._shared.recent.add(proposal.tags, soft=proposal.soft, now=began)
                return line
        raise LogUnavailable("its term changed while the purge was written")

    async def _put(self, piece: Proposal) -> LogEntry:
        answer, sent = await self._ask(piece)
        assert answer.line is not None
        self._applies.own(answer.line)
        await self._take(answer.reply, sent, answer.line)
        return answer.line

    async def _applied(self, line: LogEntry) -> bool:
        """Whether a line of our own is applied, once what stands before it has been read."""
        replica = self._shared.replica
        async with self._reading:
            behind = replica.term == line.term and replica.applied < line.seq
            if behind and not await self._settle():
                raise LogUnavailable("what was written before the purge could not be read")
        return replica.term == line.term and replica.applied >= line.seq

    async def finish(self) -> None:
        """Wait for the purges under way, which other threads may have made."""
        while self._writes:
            await asyncio.wait(self._writes)
