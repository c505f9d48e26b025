"""Writing purges to a shared log, on one event loop, and what the loops of one process share.

The rules: a purge is done when this replica has applied it in the term that it was written in, and until then it is
not; what could not be written waits in one queue for the process, fenced, and is written by whichever loop can.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

from fastapi_cacheinval.core.backlog import Backlog, Due, Recent
from fastapi_cacheinval.core.replica import LogEntry, Replica, Reply
from fastapi_cacheinval.engine.log_observer import Applies, ClockEstimate, LogObserver
from fastapi_cacheinval.errors import LogUnavailable
from fastapi_cacheinval.ports.log import Answer, Proposal

__all__ = ["LogWriter", "Shared"]

_MOST_WRITES = 3
_MOST_CAUSES = 1_000
_MOST_LINKED = 16


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
        # Those who hold up its lease.
        self.serving: set[object] = set()
        # Several event loops, each in a thread of its own, may follow for one replica.
        self.lock = threading.Lock()

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


class LogWriter:
    """Writes purges by way of one follower.

    `ask` has the log asked and written to, and gives when that was sent; `take` applies what it says; `serving` tells
    whether the follower holds a lease.
    """

    def __init__(
        self,
        shared: Shared,
        applies: Applies,
        *,
        ask: Callable[[Proposal | None], Awaitable[tuple[Answer, float]]],
        take: Callable[[Reply, float, LogEntry | None], bool],
        serving: Callable[[], bool],
    ) -> None:
        self._shared = shared
        self._applies = applies
        self._ask = ask
        self._take = take
        self._serving = serving
        # One for each purge that is being written.
        self._writes: set[asyncio.Future[None]] = set()

    async def write(self, claim: Proposal) -> LogEntry:
        """Write one purge, and apply it; raises `LogUnavailable` where that could not be brought to its end."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._writes.add(written)
        try:
            with self._applies.writing():
                return await self._write(claim)
        finally:
            self._writes.discard(written)
            written.cancel()

    async def _write(self, claim: Proposal) -> LogEntry:
        replica = self._shared.replica
        for _ in range(_MOST_WRITES):
            answer, sent = await self._ask(claim)
            line = answer.line
            if line is not None:
                self._applies.own(line)
                self._take(answer.reply, sent, line)
                if not self._serving() or (replica.term == line.term and replica.applied >= line.seq):
                    with self._shared.lock:
                        self._shared.recent.add(claim.tags, soft=claim.soft, now=sent)
                    return line
        raise LogUnavailable("its term changed while the purge was written")

    async def drain(self) -> int:
        """Write what is queued, as far as the log can be reached; how many of the purges were written."""
        backlog = self._shared.backlog
        delivered = 0
        while True:
            with self._shared.lock:
                due = backlog.due()
            if due is None:
                return delivered
            try:
                line = await self.write(Proposal(due.tags, due.soft, self._shared.causes(due)))
            except LogUnavailable:
                return delivered
            with self._shared.lock:
                for fence in backlog.written(due):
                    self._shared.replica.lift(fence)
            delivered += len(due.entries)
            self._shared.observer.numbered(line)

    async def finish(self) -> None:
        """Wait for the purges under way, which other threads may have made, and write what is queued."""
        while self._writes:
            await asyncio.wait(self._writes)
        if self._shared.backlog:
            await self.drain()
