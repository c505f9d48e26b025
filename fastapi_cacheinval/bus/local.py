"""The purge log of one process."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Callable
from math import inf

from fastapi_cacheinval.core.log_types import LogEntry, Reset, Term
from fastapi_cacheinval.core.replica import Replica
from fastapi_cacheinval.errors import PurgeNotDelivered
from fastapi_cacheinval.ports.bus import Applied, BusState
from fastapi_cacheinval.ports.log import Proposal

__all__ = ["LocalBus"]


class LocalBus:
    """Numbers purges in memory and applies each to the replica before anything else can read it.

    There is nothing to lose touch with, so the lease is always live. `publish` may be called from
    any thread, by `publish_now` without a loop. In a process that was forked meanwhile it raises `PurgeNotDelivered`
    until the cache is started there: nothing tells the other process.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._replica: Replica | None = None
        self._term = Term(0, "")
        self._seq = 0
        # Whether what is purged here is kept in the process that this one was forked from.
        self._kept_elsewhere = False

    def forked(self) -> None:
        """Begin with a free lock, in a process that was forked: whoever had it is not there."""
        self._lock = threading.Lock()
        self._kept_elsewhere = self._replica is not None

    async def start(self, replica: Replica, *, serving: bool) -> None:
        # From now on this process keeps pages of its own.
        self._kept_elsewhere = False
        self.attach(replica)

    def attach(self, replica: Replica) -> None:
        """Open the log's only term, at the first call; later calls change nothing."""
        with self._lock:
            if self._replica is replica:
                return
            self._replica = replica
            # Made here, not in __init__: a process that was forked after it must not share it.
            self._term = Term(1, secrets.token_hex(8))
            now = self._now()
            replica.apply_reply(Reset(self._term, self._seq, ""), now, now)
            replica.lease_until = inf

    async def flush(self) -> int:
        return 0

    async def stop(self) -> int:
        return 0

    async def publish(self, proposal: Proposal) -> LogEntry:
        first, *others = proposal.lines()
        line = self.publish_now(first)
        for piece in others:
            # It holds up nobody, however many tags it has.
            await asyncio.sleep(0)
            line = self.publish_now(piece)
        return line._replace(tags=proposal.tags)

    def publish_now(self, proposal: Proposal) -> LogEntry:
        """Write and apply one line, in one step that no reader can see half of."""
        if self._kept_elsewhere:
            reason = "this process was forked from the one that keeps the pages"
            cure = "Without Redis no other process hears of it: make the cache by HTTPCache.from_url()."
            raise PurgeNotDelivered(proposal.tags, reason, queued=False, cure=cure)
        with self._lock:
            replica = self._replica
            now = self._now()
            self._seq += 1
            line = LogEntry(self._term, self._seq, f"{self._seq:x}", proposal.tags, proposal.soft, now, proposal.trace)
            if replica is not None:
                replica.apply_message(line, now)
            return line

    async def applied_by_all(self, line: LogEntry) -> Applied:
        """The one replica of this process applied it when it was numbered."""
        return Applied(1)

    async def catch_up(self) -> bool:
        return True

    def state(self) -> BusState:
        return BusState(connected=True, queue_length=0)
