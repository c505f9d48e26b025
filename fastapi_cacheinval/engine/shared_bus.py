"""The bus over a log that replicas share: one follower for each event loop, one queue for the process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from contextvars import Context

from fastapi_cacheinval.core.log_types import LogEntry
from fastapi_cacheinval.core.replica import Replica
from fastapi_cacheinval.engine.clocks import ClockEstimate, ended
from fastapi_cacheinval.engine.log_follower import Follower
from fastapi_cacheinval.engine.log_observer import LogObserver
from fastapi_cacheinval.engine.log_waits import Looked, Looks
from fastapi_cacheinval.engine.log_writer import Shared, in_one_term
from fastapi_cacheinval.errors import LogUnavailable, PurgeNotDelivered, ReplicasUnknown
from fastapi_cacheinval.ports.bus import Applied, BusState
from fastapi_cacheinval.ports.clock import Clock
from fastapi_cacheinval.ports.log import Proposal, SharedLog

__all__ = ["SharedBus"]

logger = logging.getLogger("fastapi_cacheinval.bus")

# Seconds to wait for the word of the others, before a look at the log.
_SOON = 0.05


class SharedBus:
    """A `Bus` over logs that `connect` makes, one for each event loop; `timeout` is seconds for one call to the log.

    `server_clock` is where it keeps what it learns of the server's clock.
    """

    def __init__(
        self,
        connect: Callable[[], SharedLog],
        replica: Replica,
        observer: LogObserver,
        clock: Clock,
        *,
        bound: float,
        timeout: float,
        server_clock: ClockEstimate | None = None,
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._bound = bound
        self._timeout = timeout
        self._shared = Shared(replica, observer, "", server_clock)
        self._followers: dict[asyncio.AbstractEventLoop, Follower] = {}
        # Loops whose followers have yet to look for a log that others could not reach.
        self._to_look: set[asyncio.AbstractEventLoop] = set()

    @property
    def identity(self) -> str:
        """The id of this replica in the log; empty before the start."""
        return self._shared.identity

    def forked(self) -> object:
        """Forget the links of the parent, which writes what it has queued itself; what may not be collected."""
        kept = (self._shared, dict(self._followers))
        self._followers.clear()
        self._to_look.clear()
        self._shared = self._shared.anew()
        self._shared.replica.let_go()
        return kept

    async def start(self, replica: Replica, *, serving: bool) -> None:
        if not self._shared.identity:
            # Made here, not in __init__: a process that is forked before the start has one of its own.
            self._shared.identity = secrets.token_hex(8)
        loop = asyncio.get_running_loop()
        for other in list(self._followers):
            if other.is_closed():
                self._followers.pop(other).forget()
        follower = self._followers.get(loop)
        if follower is None:
            follower = Follower(self._connect(), self._shared, self._clock, bound=self._bound, context=Context())
            self._followers[loop] = follower
        await follower.begin(serving=serving, patience=4 * self._timeout)

    async def flush(self) -> int:
        follower = self._followers.get(asyncio.get_running_loop())
        if follower is not None:
            await follower.flush(self._bound)
        return len(self._shared.backlog)

    async def stop(self) -> int:
        follower = self._followers.pop(asyncio.get_running_loop(), None)
        if follower is None:
            return 0
        await follower.end(self._bound)
        return 0 if self._followers else len(self._shared.backlog)

    async def publish(self, proposal: Proposal) -> LogEntry:
        link = self._link()
        if link is None:
            try:
                return await self._publish_once(proposal)
            except LogUnavailable as away:
                # Nothing is left behind of who has not started.
                raise PurgeNotDelivered(proposal.tags, away.reason, queued=False) from away
        loop, follower = link
        if follower.connected is False or loop in self._to_look:
            # Nobody waits for a server that is known to be silent.
            raise self._queued(proposal, "it is out of reach")
        try:
            if loop is asyncio.get_running_loop():
                return await follower.write(proposal)
            return await self._publish_beside(proposal)
        except LogUnavailable as away:
            queued = self._queued(proposal, away.reason)
            self._have_look(loop, follower)
            raise queued from away
        except asyncio.CancelledError:
            # What it is for may have been written, and whether the log has it is not known.
            self._queued(proposal, "cancelled")
            self._have_look(loop, follower)
            raise

    def _link(self) -> tuple[asyncio.AbstractEventLoop, Follower] | None:
        """The follower on the running loop, or one on a loop that another thread runs: it writes what is queued."""
        here, followers = asyncio.get_running_loop(), dict(self._followers)
        running = [loop for loop in followers if loop.is_running()]
        loop = here if here in running else next(iter(running), None)
        return None if loop is None else (loop, followers[loop])

    def _have_look(self, loop: asyncio.AbstractEventLoop, follower: Follower) -> None:
        """Have a follower look for the log soon, and nobody before it, however long its loop stands still."""
        if loop is asyncio.get_running_loop():
            follower.want()
            return

        def look() -> None:
            self._to_look.discard(loop)
            follower.want()

        self._to_look.add(loop)
        with contextlib.suppress(RuntimeError):  # it has been closed since
            loop.call_soon_threadsafe(look)

    def _queued(self, proposal: Proposal, reason: str) -> PurgeNotDelivered:
        with self._shared.lock:
            self._shared.queue(proposal.tags, soft=proposal.soft, now=self._clock.now(), trace=proposal.trace)
        logger.debug(
            "a purge of %d tag(s) is queued: %s",
            len(proposal.tags),
            reason,
            extra={"cacheinval.soft": proposal.soft, "cacheinval.cause": reason},
        )
        return PurgeNotDelivered(proposal.tags, reason)

    async def _publish_beside(self, proposal: Proposal) -> LogEntry:
        """On a loop that has no follower, in a process that has one."""
        began = self._clock.now()
        line = await self._publish_once(proposal)
        with self._shared.lock:
            self._shared.recent.add(proposal.tags, soft=proposal.soft, now=began)
        return line

    async def _publish_once(self, proposal: Proposal) -> LogEntry:
        """Over a connection that is closed again; raises `LogUnavailable`."""
        log = self._connect()
        ask = Replica(staleness_bound=self._bound).ask()
        with self._shared.obeying(proposal, self._clock) as written:

            async def put(piece: Proposal) -> LogEntry:
                line = (await log.run(ask, "", piece, lines=False)).line
                assert line is not None
                written(line)
                return line

            try:
                line = await in_one_term(proposal, put)
            finally:
                await log.close()
            if line is None:
                raise LogUnavailable("its term changed while the purge was written")
        return line

    async def applied_by_all(self, line: LogEntry) -> Applied:
        follower = self._followers.get(asyncio.get_running_loop())
        if follower is not None:
            others = await follower.waits.applied(line, _SOON)
            if others is not None:
                return Applied(others + follower.serving)
            follower.want()
        try:
            standing, reason = await (self._looked(line) if follower is None else follower.looks.until_applied(line))
        except LogUnavailable as away:
            raise ReplicasUnknown(line.term.number, line.seq, away.reason) from away
        if standing.behind:
            raise ReplicasUnknown(line.term.number, line.seq, f"{standing.behind} ask the log and do not get as far")
        return Applied(standing.there, reason)

    async def _looked(self, line: LogEntry) -> Looked:
        """Look until nobody is behind a line, over a connection that is closed again; raises `LogUnavailable`."""
        log = self._connect()
        looks = Looks(log, self._clock)
        answering = asyncio.get_running_loop().create_task(self._answer_for(line, log))
        try:
            return await looks.until_applied(line)
        finally:
            await ended((answering,))
            await looks.close()
            await log.close()

    async def _answer_for(self, line: LogEntry, log: SharedLog) -> None:
        """Say that this replica has applied a line: the loop that would may stand still.

        Again and again: what another thread says of an earlier line may come later.
        """
        link, shared = self._link(), self._shared
        while link is not None and link[1].serving:
            if shared.has_read(line):
                with contextlib.suppress(LogUnavailable):
                    await log.run(shared.replica.ask(), shared.identity, lines=False)
            await asyncio.sleep(_SOON)

    async def catch_up(self) -> bool:
        follower = self._followers.get(asyncio.get_running_loop())
        if follower is None or follower.connected is False:
            return False
        try:
            async with asyncio.timeout(2 * self._timeout):
                return await follower.synced()
        except TimeoutError:
            return False

    def state(self) -> BusState:
        connected = any(follower.connected for follower in self._followers.values())
        with self._shared.lock:
            backlog = self._shared.backlog
            return BusState(connected=connected, queue_length=len(backlog), oldest=backlog.oldest)
