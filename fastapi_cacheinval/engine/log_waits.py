"""Waiting until every replica has applied a line: for lines of our own, and for those of others that wait for us.

The rules: the writer of such a line is told how many others hold a lease, and gets a message once all of them have
applied it. A replica that has applied such a line says so at once, with a heartbeat beside the regular ones. If no
message comes, the writer looks at the log, which knows how far each replica has read. At most one look is under way,
however many wait: a look for the newest line answers for those before it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from operator import attrgetter

from fastapi_cacheinval.core.log_types import AppliedByAll, LogEntry
from fastapi_cacheinval.engine.clocks import DoublingPause, ended
from fastapi_cacheinval.engine.log_touch import FIRST_PAUSE, LONGEST_PAUSE
from fastapi_cacheinval.errors import LogUnavailable
from fastapi_cacheinval.ports.clock import Clock
from fastapi_cacheinval.ports.log import SharedLog, Standing

__all__ = ["Looked", "Looks", "Waits"]

# Lines that are waited for at once; for more of them the writer looks at the log.
_MOST = 1_000
_MOST_OWED = 64
_FIRST_LOOK = 0.0005
_LONGEST_LOOK = 0.05
# A lease that is not renewed has lapsed after one, a term's first after two.
_MOST_BOUNDS = 4


class Waits:
    """One follower's part in it; `beat` makes a heartbeat, which tells what is owed, and says whether it went well."""

    def __init__(self, log: SharedLog, beat: Callable[[], Awaitable[bool]], context: Context) -> None:
        self._log = log
        self._beat = beat
        self._context = context
        # By the nonce of the line: how many others have to apply it, and what is done once they have.
        self._expected: OrderedDict[str, tuple[int, asyncio.Future[None]]] = OrderedDict()
        # Nonces of unknown lines: the message may overtake the reply that says which line is ours.
        self._early: deque[str] = deque(maxlen=_MOST)
        self._owed: deque[LogEntry] = deque(maxlen=_MOST_OWED)
        self._paying: asyncio.Task[None] | None = None
        self._hearing: asyncio.Task[None] | None = None
        self._heard: asyncio.Future[None] | None = None

    # -- lines of our own -----------------------------------------------------------------------

    def expect(self, line: LogEntry, pending: int) -> None:
        """A line is written, and so many others are to apply it."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._expected[line.nonce] = pending, done
        if not pending or line.nonce in self._early:
            done.set_result(None)
        if len(self._expected) > _MOST:
            self._expected.popitem(last=False)

    def told(self, nonce: str) -> None:
        """All of them have applied it."""
        _, done = self._expected.get(nonce, (0, None))
        if done is None:
            self._early.append(nonce)
        elif not done.done():
            done.set_result(None)

    async def applied(self, line: LogEntry, seconds: float) -> int | None:
        """How many others have applied a line, once all have; None where that is not told within so many seconds."""
        pending, done = self._expected.get(line.nonce, (0, None))
        if done is None:
            return None
        if not done.done():
            await asyncio.wait((done,), timeout=seconds)
        return pending if done.done() else None

    async def hear(self, replica: str, seconds: float) -> None:
        """Have the word come here, where nobody listens to lines; returns after a first try, of so many seconds."""
        if self._heard is None:
            self._heard = asyncio.get_running_loop().create_future()
            work = self._listen(replica, self._heard)
            self._hearing = asyncio.get_running_loop().create_task(work, context=self._context.copy())
        await asyncio.wait((self._heard,), timeout=seconds)

    async def _listen(self, replica: str, heard: asyncio.Future[None]) -> None:
        pause = DoublingPause(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            with suppress(LogUnavailable):
                async for word in self._log.messages(replica, lines=False):
                    pause.reset()
                    if isinstance(word, AppliedByAll):
                        self.told(word.nonce)
                    elif not heard.done():
                        heard.set_result(None)
            if not heard.done():
                # Without a subscription the log is looked at.
                heard.set_result(None)
            await asyncio.sleep(pause.take())

    # -- lines of others ------------------------------------------------------------------------

    def owe(self, line: LogEntry) -> None:
        """A line was applied here, and its writer waits to be told."""
        self._owed.append(line)
        if self._paying is None:
            self._paying = asyncio.get_running_loop().create_task(self._pay(), context=self._context.copy())

    async def _pay(self) -> None:
        try:
            # What comes while one is under way goes with the next.
            while self._owed and await self._beat():
                pass
        finally:
            self._paying = None

    def owed(self) -> Sequence[LogEntry]:
        """What a heartbeat is to tell."""
        return tuple(self._owed)

    def paid(self, lines: Sequence[LogEntry]) -> None:
        """A heartbeat has told it."""
        for line in lines:
            if self._owed and self._owed[0] is line:
                self._owed.popleft()

    async def close(self) -> None:
        """End what is under way; never raises."""
        await ended([task for task in (self._paying, self._hearing) if task is not None])


Looked = tuple[Standing, str | None]
"""The last look for a line, and what took longer than the replicas."""


@dataclass(slots=True, eq=False)
class _Waiter:
    line: LogEntry
    began: float
    done: asyncio.Future[Looked]
    reason: str | None = None


class Looks:
    """Looks at one log, with pauses that grow while nobody is answered."""

    def __init__(self, log: SharedLog, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._waiting: list[_Waiter] = []
        self._task: asyncio.Task[None] | None = None

    async def until_applied(self, line: LogEntry) -> Looked:
        """Look until nobody is behind a line, but not for ever; raises `LogUnavailable`."""
        waiter = _Waiter(line, self._clock.now(), asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), context=Context())
        return await waiter.done

    async def close(self) -> None:
        """End, and tell all who wait so."""
        task = self._task
        if task is not None:
            await ended((task,))
            if self._task is task:
                # It was cancelled before its first step, and has told nobody.
                self._end()

    async def _run(self) -> None:
        pause = _FIRST_LOOK
        try:
            while self._waiting:
                answered = await self._round()
                pause = _FIRST_LOOK if answered else min(pause * 1.25, _LONGEST_LOOK)
                if self._waiting:
                    await asyncio.sleep(pause)
        finally:
            self._end()

    def _end(self) -> None:
        self._task = None
        self._fail(self._waiting, LogUnavailable("it has been closed"))

    async def _round(self) -> bool:
        """One look for each term that somebody waits in; whether it has answered anybody."""
        waiting = self._waiting = [each for each in self._waiting if not each.done.done()]
        for term in dict.fromkeys(each.line.term for each in waiting):
            mine = [each for each in waiting if each.line.term == term]
            newest = max((each.line for each in mine), key=attrgetter("seq"))
            try:
                standing = await self._log.behind(newest)
            except LogUnavailable as away:
                self._fail(mine, away)
            else:
                self._answer(mine, standing)
        # Some may have come meanwhile.
        self._waiting = [each for each in self._waiting if not each.done.done()]
        return any(each.done.done() for each in waiting)

    def _answer(self, waiting: list[_Waiter], found: Standing) -> None:
        now = self._clock.now()
        for each in waiting:
            standing = found.of(each.line.seq)
            if each.done.done():
                continue
            if not standing.behind or now >= each.began + _MOST_BOUNDS * standing.bound:
                each.done.set_result((standing, each.reason))
            elif standing.young:
                each.reason = "new-term"

    @staticmethod
    def _fail(waiting: list[_Waiter], error: LogUnavailable) -> None:
        for each in waiting:
            if not each.done.done():
                each.done.set_exception(LogUnavailable(error.reason))
