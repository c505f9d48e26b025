"""Leaves this replica's summary in Redis once per lease, for `cacheinval` and the inspector.

Nothing waits for it, and nothing fails by it: it is one SET every few seconds, beside the heartbeats.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from contextvars import Context

from fastapi_cacheinval.core.statistics import Statistics
from fastapi_cacheinval.core.summary import AppliedPurge, ReplicaSummary, rates
from fastapi_cacheinval.engine.apps import Apps
from fastapi_cacheinval.engine.clocks import ended, paused
from fastapi_cacheinval.engine.process_name import host_name
from fastapi_cacheinval.engine.settings import Settings
from fastapi_cacheinval.errors import TierUnavailable
from fastapi_cacheinval.ports.clock import Clock
from fastapi_cacheinval.ports.summaries import Summaries
from fastapi_cacheinval.version import __version__

__all__ = ["SummaryFacts", "SummaryWriter"]

logger = logging.getLogger("fastapi_cacheinval.cache")

_LEAST_PAUSE = 1.0
_LONGEST_PAUSE = 10.0
# A summary lives for so many pauses: for that long a replica that was killed is seen, without a lease.
_LIVES = 15


class SummaryFacts:
    """What the summaries of one cache are made of; `applied` are the purges of others that it applied last."""

    def __init__(
        self,
        settings: Settings,
        apps: Apps,
        clock: Clock,
        *,
        statistics: Callable[[], Statistics],
        applied: Callable[[], tuple[AppliedPurge, ...]],
    ) -> None:
        self.clock = clock
        self._settings = settings
        self._apps = apps
        self._statistics = statistics
        self._applied = applied
        self._since = self._counted = clock.now()
        # The requests of each route by the last summary.
        self._requests: dict[str, int] = {}
        self._written = -_LONGEST_PAUSE
        # How many event loops write them.
        self.loops = 0

    @property
    def pause(self) -> float:
        """Seconds between two summaries: one lease, but at least one second and at most ten."""
        return min(max(self._settings.staleness_bound, _LEAST_PAUSE), _LONGEST_PAUSE)

    def due(self) -> bool:
        """Whether one is due: no event loop of this process has just written one. From now on it counts as written."""
        now = self.clock.now()
        due = now - self._written >= self.pause / 2
        if due:
            self._written = now
        return due

    def summary(self, replica: str) -> ReplicaSummary:
        """This replica now."""
        statistics, now = self._statistics(), self.clock.now()
        found = rates(statistics.routes, self._requests, now - self._counted)
        self._requests = {route: counts.requests for route, counts in statistics.routes.items()}
        self._counted = now
        return ReplicaSummary(
            replica=replica,
            host=host_name(),
            pid=os.getpid(),
            package=__version__,
            release=self._settings.version,
            apps=self._apps.titles,
            uptime=now - self._since,
            every=self.pause,
            bound=self._settings.staleness_bound,
            confirm_replicas=self._settings.confirm_replicas,
            statistics=statistics,
            rates=found,
            applied=self._applied(),
        )


class SummaryWriter:
    """One event loop's part; `identity` gives the replica's id in the log."""

    def __init__(self, summaries: Summaries, facts: SummaryFacts, identity: Callable[[], str]) -> None:
        self._summaries = summaries
        self._facts = facts
        self._identity = identity
        self._task: asyncio.Task[None] | None = None
        self._failed = False

    def start(self) -> None:
        """Begin, in no request's context."""
        self._facts.loops += 1
        self._task = asyncio.get_running_loop().create_task(self._run(), context=Context())

    async def close(self) -> None:
        """End, and take the summary away; never raises."""
        task, self._task = self._task, None
        if task is None:
            return
        await ended((task,))
        self._facts.loops -= 1
        if self._facts.loops:
            # Another event loop of this replica goes on.
            return
        try:
            await self._summaries.drop(self._identity())
        except TierUnavailable as error:
            logger.debug("the summary of this replica is left to its TTL: %s", error)

    async def _run(self) -> None:
        pause = self._facts.pause
        # A replica that has just started is seen soon, and its start is not held up.
        await paused(self._facts.clock, pause / 3)
        while True:
            if self._facts.due():
                await self._write(_LIVES * pause)
            await paused(self._facts.clock, pause)

    async def _write(self, life: float) -> None:
        try:
            await self._summaries.write(self._facts.summary(self._identity()), life)
        except TierUnavailable as error:
            logger.debug("the summary of this replica could not be written: %s", error)
        except Exception:
            # The next one may succeed: the counts are others by then.
            if not self._failed:
                logger.exception("the summary of this replica could not be made: the command line does not see it")
            self._failed = True
