"""Keeping a replica up to a shared log, on one event loop.

The rules: subscribe, then ask the log, then serve; ask every third of the bound, at once where a message does not
follow on what was read, and once more after everything had to be given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any

from fastapi_cacheinval.core.replica import LogEntry, Missed, Next, Reply
from fastapi_cacheinval.engine.clocks import ended, within
from fastapi_cacheinval.engine.log_observer import MEANT, Applies, Outage, cause_of
from fastapi_cacheinval.engine.log_once import Seldom
from fastapi_cacheinval.engine.log_writer import LogWriter, Shared
from fastapi_cacheinval.errors import LogUnavailable
from fastapi_cacheinval.ports.clock import Clock
from fastapi_cacheinval.ports.log import Answer, Proposal, SharedLog

__all__ = ["Follower"]

logger = logging.getLogger("fastapi_cacheinval.bus")

_MOST_ASKS = 4
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
# So many subscriptions in a row that fail are no accident.
_WORTH_SAYING = 4


class Follower:
    """One event loop's link between a log and the process's replica; `bound` is the length of a lease in seconds.

    `connected` is None before the first word from the log.
    """

    def __init__(self, log: SharedLog, shared: Shared, clock: Clock, *, bound: float, context: Any) -> None:
        self.log = log
        self.connected: bool | None = None
        self._shared = shared
        self._replica = shared.replica
        self._clock = clock
        self._bound = bound
        self._context = context
        self._serving = False
        # Whether the first word from the log has come, or has been waited for in vain.
        self._greeted = False
        self._tasks: list[asyncio.Task[None]] = []
        self._learning: asyncio.Task[None] | None = None
        self._pause = _FIRST_PAUSE
        self._failed = False
        self._failures = 0
        # Since the log was lost, until what that held up is done.
        self._outage: Outage | None = None
        # A log that comes and goes is said to do so three times, and then twice a minute.
        self._seldom = Seldom(3, 30.0)
        self._wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._next: asyncio.Future[bool] | None = None
        self._applies = Applies(shared.observer, shared.server_clock)
        self._writer = LogWriter(shared, self._applies, ask=self._asked, take=self._take, serving=lambda: self._serving)
        self._subscribed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    # -- life -----------------------------------------------------------------------------------

    async def begin(self, *, serving: bool, patience: float) -> None:
        """Start, and wait for the first word from the log, for at most so many seconds."""
        if not self._tasks:
            self._task(self._follow())
        if serving and not self._serving:
            self._serving = True
            self._shared.serving.add(self)
            self._task(self._listen())
        if serving and not self._greeted:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._first_word()
            self._greeted = True

    async def _first_word(self) -> None:
        await asyncio.shield(self._subscribed)
        await self.synced()
        if self._learning is not None:
            # Until then what others have stored is of no use here.
            await asyncio.wait((self._learning,))

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work, context=self._context.copy()))

    async def end(self, patience: float) -> None:
        """Stop; what is queued gets one last try of at most so many seconds."""
        tasks = [*self._tasks, *([] if self._learning is None else [self._learning])]
        self._tasks.clear()
        await ended(tasks)
        self._answer_all()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                # Without its connection they would be lost.
                await self._writer.finish()
        if self.forget():
            with contextlib.suppress(LogUnavailable):
                await self.log.leave(self._shared.identity)
        await self.log.close()

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

    @property
    def _name(self) -> str:
        """The id under which this replica takes a lease; who only publishes takes none."""
        return self._shared.identity if self._serving else ""

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
                delivered = await self._writer.drain() if settled and self._shared.backlog else 0
                if settled and self.connected:
                    self._returned(delivered)
            finally:
                if waited is not None and not waited.done():
                    waited.set_result(settled)
            await self._rest()

    async def _rest(self) -> None:
        if self._failed:
            # Not at once, whoever asks: a server that comes back must not be met by all at the same moment.
            never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            await within(self._clock, never, self._pause)
            self._pause = min(self._pause * 2, _LONGEST_PAUSE, self._bound / 3)
        elif self._serving:
            await within(self._clock, self._wake, self._bound / 3)
        else:
            await self._wake

    async def _asked(self, purge: Proposal | None) -> tuple[Answer, float]:
        """What the log says, and when it was asked; raises `LogUnavailable`, and notes whether it is in touch."""
        sent = self._clock.now()
        try:
            answer = await self.log.run(self._replica.ask(), self._name, purge)
        except LogUnavailable as away:
            self._lost(away.reason)
            raise
        self._found()
        return answer, sent

    async def _settled(self) -> bool:
        for _ in range(_MOST_ASKS):
            try:
                answer, sent = await self._asked(None)
            except LogUnavailable:
                return False
            received, generation = self._clock.now(), self._replica.generation
            self._applies.clock.learn(answer.at, sent, received)
            settled = self._take(answer.reply, sent, None)
            if self._replica.generation != generation:
                # Perhaps another server, with a clock of its own.
                self._applies.clock.forget()
                self._applies.clock.learn(answer.at, sent, received)
            if settled:
                return True
        return False

    def _take(self, reply: Reply, sent: float, own: LogEntry | None) -> bool:
        """Apply a reply; whether there is nothing more to ask for."""
        replica = self._replica
        with self._shared.lock:
            generation, applied, term = replica.generation, replica.applied, replica.term
            following = replica.apply_reply(reply, sent, self._clock.now(), lease=self._serving)
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
        if reset:
            self._gave_up(cause_of(term, reply.term))
            self._learn()
            # The log has not heard yet that this replica has let go of everything.
            return False
        return following is Next.NOTHING

    def _heard(self, line: LogEntry) -> None:
        replica = self._replica
        with self._shared.lock:
            before, generation = replica.applied, replica.generation
            following = replica.apply_message(line, self._clock.now())
            applied = replica.applied == line.seq != before
            reset = replica.generation != generation
        if reset:
            self._gave_up(cause_of(line.term, line.term))
        if applied:
            self._applies.tell(line, self._clock.now(), late=False)
        if following is Next.ASK or line.prompt:
            self.want()

    async def _listen(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                async for line in self.log.messages():
                    pause, self._failures = _FIRST_PAUSE, 0
                    if line is not None:
                        self._heard(line)
                        continue
                    if not self._subscribed.done():
                        self._subscribed.set_result(True)
                    self.want()
            except LogUnavailable as away:
                self._deaf(away.reason)
            if not self._subscribed.done():
                self._subscribed.set_result(False)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _deaf(self, reason: str) -> None:
        logger.debug("the subscription ended: %s", reason)
        # Messages may have been lost, and perhaps the log is gone as well.
        self.want()
        if not self.connected:
            # That is what has been said.
            self._failures = 0
            return
        self._failures += 1
        if self._failures == _WORTH_SAYING:
            logger.warning(
                "no subscription to the purge log (%s): what others purge is obeyed within %g s, not at once",
                reason,
                self._bound,
            )

    # -- what was purged before it joined ---------------------------------------------------------

    def _learn(self) -> None:
        if not self._serving or not self._tasks:
            return
        if self._learning is not None:
            self._learning.cancel()
        loop = asyncio.get_running_loop()
        self._learning = loop.create_task(self._read_pages(), context=self._context.copy())

    async def _read_pages(self) -> None:
        replica = self._replica
        useful = True
        while useful:
            try:
                page = await self.log.page(replica.term, replica.floor)
            except LogUnavailable as away:
                # What others have stored from before stays unusable here, which costs forwards and nothing else.
                logger.debug("what was purged before this replica joined could not be read: %s", away.reason)
                return
            if page is not None and page.seq > replica.applied:
                # What the log had by then is read first: a page is of use only to who knows it.
                await self.synced()
            with self._shared.lock:
                useful = page is not None and replica.apply_page(page, self._clock.now())

    # -- purges ---------------------------------------------------------------------------------

    async def write(self, claim: Proposal) -> LogEntry:
        """Write one purge, and apply it; raises `LogUnavailable` where that could not be brought to its end."""
        return await self._writer.write(claim)

    # -- being in touch ---------------------------------------------------------------------------

    def _lost(self, reason: str) -> None:
        self._failed = True
        self.connected = False
        if self._outage is None:
            self._outage = Outage(self._clock.now())
        if not self._outage.said and self._seldom.may(self._clock.now()):
            self._outage.said = True
            logger.warning(
                "out of touch with the purge log (%s): responses are kept for their first %g s only, purges are queued",
                reason,
                self._bound,
                extra={"cacheinval.connected": False, "cacheinval.cause": reason},
            )

    def _found(self) -> None:
        self._failed, self._pause = False, _FIRST_PAUSE
        self.connected = True

    def _gave_up(self, cause: str) -> None:
        self._shared.observer.reset(self._replica.term.number, cause)
        if self._outage is not None:
            self._outage.gave_up = True
        elif cause != "start":
            logger.info(
                "everything that was kept is given up: %s (term %d)",
                MEANT[cause],
                self._replica.term.number,
                extra={"cacheinval.cause": cause, "cacheinval.term": self._replica.term.number},
            )

    def _returned(self, delivered: int) -> None:
        """What is said once of an outage: all that it held up has been read and written."""
        outage, self._outage = self._outage, None
        if outage is not None:
            outage.log(self._clock.now(), delivered)
