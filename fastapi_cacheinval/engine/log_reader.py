"""Applying what a shared log says to the process's replica.

Replies in slices, messages one by one, and page by page, the newest first, what was purged before this replica joined.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import Context

from fastapi_cacheinval.core.log_types import LogEntry, Missed, Next, Reply
from fastapi_cacheinval.core.pieces import in_slices
from fastapi_cacheinval.engine.log_observer import Applies, cause_of
from fastapi_cacheinval.engine.log_touch import Touch
from fastapi_cacheinval.engine.log_writer import Shared
from fastapi_cacheinval.errors import LogUnavailable
from fastapi_cacheinval.ports.clock import Clock
from fastapi_cacheinval.ports.log import SharedLog

__all__ = ["LogReader", "Pages"]

logger = logging.getLogger("fastapi_cacheinval.bus")


class LogReader:
    """One follower's reading.

    `serving` tells whether it holds a lease, `want` has a heartbeat come soon, `begun_anew` is called once everything
    had to be given up and this follower serves. `owe` is called for each line that was applied and has a waiter.
    """

    def __init__(
        self,
        shared: Shared,
        applies: Applies,
        touch: Touch,
        clock: Clock,
        *,
        serving: Callable[[], bool],
        want: Callable[[], None],
        begun_anew: Callable[[], None],
        owe: Callable[[LogEntry], None],
    ) -> None:
        self._shared = shared
        self._replica = shared.replica
        self._applies = applies
        self._touch = touch
        self._clock = clock
        self._serving = serving
        self._want = want
        self._begun_anew = begun_anew
        self._owe = owe

    async def take(self, reply: Reply, sent: float, own: LogEntry | None) -> bool:
        """Apply a reply, while others have their turn in between; whether there is nothing more to ask for."""
        first, *others = in_slices(reply)
        settled = self._apply(first, sent, own)
        for part in others:
            await asyncio.sleep(0)
            settled = self._apply(part, sent, own)
        return settled

    def _apply(self, reply: Reply, sent: float, own: LogEntry | None) -> bool:
        replica, serving = self._replica, self._serving()
        with self._shared.lock:
            generation, applied, term = replica.generation, replica.applied, replica.term
            following = replica.apply_reply(reply, sent, self._clock.now(), lease=serving)
            self._shared.lift_read()
            reset = replica.generation != generation
            reached = replica.applied
            if term.number and replica.term != term:
                # The server that numbered them may not have been the one that goes on.
                for tags, soft in self._shared.recent.take(self._clock.now()):
                    self._shared.queue(tags, soft=soft, now=self._clock.now())
        if isinstance(reply, Missed) and not reset:
            for line in reply.lines:
                if applied < line.seq <= reached and line != own:
                    self._applies.tell(line, self._clock.now(), late=True)
                    self._answer(line, applied=True)
        if reset:
            cause = cause_of(term, reply.term)
            # Who only publishes keeps nothing that would have to be given up, and has not wanted to read.
            if cause != "behind" or self._shared.serving:
                self._touch.gave_up(cause, replica.term)
            if serving:
                self._begun_anew()
            # The log has not heard yet that this replica has let go of everything.
            return not serving and following is Next.NOTHING
        return following is Next.NOTHING

    def heard(self, line: LogEntry) -> None:
        """Apply a message."""
        replica = self._replica
        with self._shared.lock:
            before, generation = replica.applied, replica.generation
            following = replica.apply_message(line, self._clock.now())
            self._shared.lift_read()
            applied = replica.applied == line.seq != before
            # By this message, or before it by what another loop of this process has read.
            has = following is Next.NOTHING and replica.term == line.term and replica.applied >= line.seq
            reset = replica.generation != generation
        if reset:
            self._touch.gave_up(cause_of(line.term, line.term), replica.term)
        if applied:
            self._applies.tell(line, self._clock.now(), late=False)
        if following is Next.ASK:
            self._want()
        self._answer(line, applied=has)

    def _answer(self, line: LogEntry, *, applied: bool) -> None:
        """Tell the log that a line is applied here, if somebody waits for that."""
        if not line.prompt or (line.waiter == self._shared.identity and not self._shared.waits_for_itself):
            return
        if applied and line.waiter and self._serving():
            self._owe(line)
        else:
            self._want()


class Pages:
    """One follower's reading of what was purged before it joined; `synced` reads all that is in the log now.

    `task` is the reading, once begun.
    """

    def __init__(
        self, log: SharedLog, shared: Shared, clock: Clock, synced: Callable[[], Awaitable[bool]], context: Context
    ) -> None:
        self._log = log
        self._shared = shared
        self._clock = clock
        self._synced = synced
        self._context = context
        self.task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Read them from the newest on, once more where that was under way."""
        if self.task is not None:
            self.task.cancel()
        self.task = asyncio.get_running_loop().create_task(self._read(), context=self._context.copy())

    async def _read(self) -> None:
        replica = self._shared.replica
        useful = True
        while useful:
            try:
                page = await self._log.page(replica.term, replica.floor)
            except LogUnavailable as away:
                # What others have stored from before stays unusable here, which costs forwards and nothing else.
                logger.debug("what was purged before this replica joined could not be read: %s", away.reason)
                return
            if page is not None and page.seq > replica.applied:
                # What the log had by then is read first: a page is of use only to who knows it.
                await self._synced()
            with self._shared.lock:
                useful = page is not None and replica.apply_page(page, self._clock.now())
