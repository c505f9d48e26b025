"""Keeping a replica up to a shared log, on one event loop.

The rules: subscribe, then ask the log, then serve; ask a third of the bound after the last question, or a little later
while messages come; ask at once where one does not follow on what was read, and once more after everything had to be
given up. A message renews no lease: it does not say when it was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from fastapi_cacheinval.core.log_types import AppliedByAll, LogEntry, Missed
from fastapi_cacheinval.engine.clocks import DoublingPause, ended, within
from fastapi_cacheinval.engine.log_groups import LogGroups
from fastapi_cacheinval.engine.log_observer import Applies
from fastapi_cacheinval.engine.log_queue import LogQueue
from fastapi_cacheinval.engine.log_reader import LogReader, Pages
from fastapi_cacheinval.engine.log_touch import FIRST_PAUSE, LONGEST_PAUSE, Touch
from fastapi_cacheinval.engine.log_waits import Looks, Waits
from fastapi_cacheinval.engine.log_writer import LogWriter, Shared
from fastapi_cacheinval.errors import LogUnavailable
from fastapi_cacheinval.ports.clock import Clock
from fastapi_cacheinval.ports.log import Answer, Proposal, SharedLog

__all__ = ["Follower"]

_MOST_ASKS = 4


class Follower:
    """One event loop's link between a log and the process's replica; `bound` is the length of a lease in seconds."""

    def __init__(self, log: SharedLog, shared: Shared, clock: Clock, *, bound: float, context: Any) -> None:
        self.log = log
        self._shared = shared
        self._replica = shared.replica
        self._clock = clock
        self._bound = bound
        self._context = context
        self._serving = False
        # Whether the first word from the log has come, or has been waited for in vain.
        self._greeted = False
        self._tasks: list[asyncio.Task[None]] = []
        self._touch = Touch(shared.observer, clock, bound=bound)
        self._wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._next: asyncio.Future[bool] | None = None
        self._applies = Applies(shared.observer, shared.server_clock)
        self._pages = Pages(log, shared, clock, self.synced, context)
        self.waits = Waits(log, self._told, context)
        self.looks = Looks(log, clock)
        self._reader = LogReader(
            shared,
            self._applies,
            self._touch,
            clock,
            serving=lambda: self._serving,
            want=self.want,
            begun_anew=self._begun_anew,
            owe=self.waits.owe,
        )
        self._writer = LogWriter(
            shared,
            self._applies,
            clock,
            ask=self._asked,
            take=self._reader.take,
            settle=self._settled,
        )
        self._groups = LogGroups(self._writer.write, context)
        self._queue = LogQueue(shared, self._touch, write=self._writer.write, want=self.want, context=context)
        self._subscribed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    @property
    def connected(self) -> bool | None:
        """Whether the log answers; None before its first word."""
        return self._touch.connected

    @property
    def serving(self) -> bool:
        """Whether it holds a lease, or would if the log answered."""
        return self._serving

    # -- life -----------------------------------------------------------------------------------

    async def begin(self, *, serving: bool, patience: float) -> None:
        """Start, and wait for the first word from the log, for at most so many seconds."""
        if not self._tasks:
            self._task(self._follow())
        if serving and not self._serving:
            self._serving = True
            self._shared.serving.add(self)
            self._shared.served = True
            self._task(self._listen())
        if serving and not self._greeted:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._first_word()
            self._greeted = True

    async def _first_word(self) -> None:
        await asyncio.shield(self._subscribed)
        await self.synced()
        if self._pages.task is not None:
            # Until then what others have stored is of no use here.
            await asyncio.wait((self._pages.task,))

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work, context=self._context.copy()))

    async def end(self, patience: float) -> None:
        """Stop; what is queued gets one last try of at most so many seconds."""
        others = (self._pages.task, self._queue.task)
        tasks = [*self._tasks, *(task for task in others if task is not None)]
        self._tasks.clear()
        await ended(tasks)
        self._answer_all()
        # Without its connection they would be lost.
        await self.flush(patience)
        await self._groups.close()
        await self.waits.close()
        await self.looks.close()
        if self.forget():
            with contextlib.suppress(LogUnavailable):
                await self.log.leave(self._shared.identity)
        await self.log.close()

    async def flush(self, patience: float) -> None:
        """Give purges under way, and what is queued, so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._writer.finish()
                await self._queue.drain()

    def forget(self) -> bool:
        """Count no longer as one that serves; whether it was the last, and the replica has given up its lease."""
        shared = self._shared
        with shared.lock:
            last = self in shared.serving and len(shared.serving) == 1
            shared.serving.discard(self)
            if last:
                # Nothing renews it any more, and the log has not been told yet that nobody has to wait for it.
                self._replica.let_go()
        return last

    def _answer_all(self) -> None:
        """Let nobody wait for what will not come any more."""
        for waited in (self._subscribed, self._next):
            if waited is not None and not waited.done():
                waited.set_result(False)

    # -- asking ---------------------------------------------------------------------------------

    def want(self) -> None:
        """Ask the log as soon as possible."""
        if not self._wake.done():
            self._wake.set_result(None)

    async def synced(self) -> bool:
        """Wait for a heartbeat that begins after this call; whether it renewed the lease."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        waited = self._next
        self.want()
        return await asyncio.shield(waited)

    async def _follow(self) -> None:
        try:
            await self._beat()
        except asyncio.CancelledError:
            if self._tasks:
                # Its loop ends, and nobody has stopped it before.
                self.forget()
                await self.log.close()
            raise

    async def _beat(self) -> None:
        while True:
            self._wake = asyncio.get_running_loop().create_future()
            waited, self._next = self._next, None
            settled = False
            try:
                # Who only publishes asks once whether the log is there, and again after it was not.
                settled = await self._settled() if self._serving or not self.connected else True
                if settled and self._shared.backlog:
                    self._queue.begin()
                elif settled:
                    self._touch.returned()
            finally:
                if waited is not None and not waited.done():
                    waited.set_result(settled)
            await self._rest()

    async def _rest(self) -> None:
        if self._touch.failed:
            # Not at once, whoever asks: a server that comes back must not be met by all at the same moment.
            never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            await within(self._clock, never, self._touch.pause())
        elif self._serving:
            rest = self._bound / 3
            # A purge of our own is a heartbeat too: what it has renewed need not be renewed yet.
            while rest > 0 and not await within(self._clock, self._wake, rest) and not self._shared.backlog:
                rest = self._replica.lease_until - self._clock.now() - self._bound + self._touch.rest()
        else:
            await self._wake

    def _begun_anew(self) -> None:
        if self._tasks:
            self._pages.begin()

    async def _told(self) -> bool:
        """One heartbeat for what others wait for; whether the log has answered."""
        try:
            answer, sent = await self._asked(None)
        except LogUnavailable:
            self.want()
            return False
        if not await self._reader.take(answer.reply, sent, None):
            self.want()
        return True

    async def _asked(self, purge: Proposal | None) -> tuple[Answer, float]:
        """What the log says, and when it was asked; raises `LogUnavailable`, and notes whether it is in touch."""
        sent = self._clock.now()
        try:
            # Who only publishes takes no lease, and reads nothing.
            name, lines = self._shared.identity if self._serving else "", bool(self._shared.serving)
            applied = self.waits.owed() if purge is None else ()
            waiter = self._shared.identity if purge is not None and purge.prompt else ""
            answer = await self.log.run(self._replica.ask(), name, purge, lines=lines, waiter=waiter, applied=applied)
        except LogUnavailable as away:
            self._touch.lost(away.reason)
            raise
        self._touch.found()
        if applied:
            self.waits.paid(applied)
        if answer.line is not None and answer.pending is not None:
            self.waits.expect(answer.line, answer.pending)
        return answer, sent

    async def _settled(self) -> bool:
        """Ask, and apply what comes, until there is nothing more; whether it has come to that."""
        doubts = 0
        while doubts < _MOST_ASKS:
            try:
                answer, sent = await self._asked(None)
            except LogUnavailable:
                return False
            received, generation = self._clock.now(), self._replica.generation
            self._applies.clock.learn(answer.at, sent, received)
            settled = await self._reader.take(answer.reply, sent, None)
            if self._replica.generation != generation:
                # Perhaps another server, with a clock of its own.
                self._applies.clock.forget()
                self._applies.clock.learn(answer.at, sent, received)
            if settled:
                return True
            # Another page is no doubt.
            doubts += not (isinstance(answer.reply, Missed) and answer.reply.more)
        return False

    async def _listen(self) -> None:
        pause = DoublingPause(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                async for line in self.log.messages(self._shared.identity):
                    pause.reset()
                    self._touch.heard()
                    if isinstance(line, AppliedByAll):
                        self.waits.told(line.nonce)
                        continue
                    if line is not None:
                        self._reader.heard(line)
                        # What has come while this process stood still comes without a pause.
                        await asyncio.sleep(0)
                        continue
                    if not self._subscribed.done():
                        self._subscribed.set_result(True)
                    self.want()
            except LogUnavailable as away:
                self._touch.deaf(away.reason)
                # Messages may have been lost, and perhaps the log is gone as well.
                self.want()
            if not self._subscribed.done():
                self._subscribed.set_result(False)
            await asyncio.sleep(pause.take())

    # -- purges ---------------------------------------------------------------------------------

    async def write(self, proposal: Proposal) -> LogEntry:
        """Write one purge, and apply it; raises `LogUnavailable` where that could not be brought to its end."""
        if proposal.prompt and not self._serving:
            self._shared.waits_for_itself = True
            await self.waits.hear(self._shared.identity, self._bound)
        return await self._groups.write(proposal)
