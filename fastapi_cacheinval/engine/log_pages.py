"""Learning what was purged before this replica joined: the log remembers it, page by page, the newest first."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import Context

from fastapi_cacheinval.engine.log_writer import Shared
from fastapi_cacheinval.errors import LogUnavailable
from fastapi_cacheinval.ports.clock import Clock
from fastapi_cacheinval.ports.log import SharedLog

__all__ = ["Pages"]

logger = logging.getLogger("fastapi_cacheinval.bus")


class Pages:
    """One follower's reading of them; `synced` reads all that is in the log now. `task` is the reading, once begun."""

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
