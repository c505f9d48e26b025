"""Writing what is queued, once the log is there again, beside everything else that goes on.

The rules: no purge waits for the queue, and in it none waits for one that fails; heartbeats go on meanwhile, and begin
it again after a failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context

from fastapi_cacheinval.core.log_types import LogEntry
from fastapi_cacheinval.engine.clocks import DoublingPause
from fastapi_cacheinval.engine.log_touch import FIRST_PAUSE, LONGEST_PAUSE, Touch
from fastapi_cacheinval.engine.log_writer import Shared
from fastapi_cacheinval.errors import LogUnavailable
from fastapi_cacheinval.ports.log import Proposal

__all__ = ["LogQueue"]


class LogQueue:
    """One follower's part in it; `write` writes a purge, `want` has a heartbeat come soon, `task` is the work."""

    def __init__(
        self,
        shared: Shared,
        touch: Touch,
        *,
        write: Callable[[Proposal], Awaitable[LogEntry]],
        want: Callable[[], None],
        context: Context,
    ) -> None:
        self._shared = shared
        self._touch = touch
        self._write = write
        self._want = want
        self._context = context
        self.task: asyncio.Task[None] | None = None
        self._pause = DoublingPause(FIRST_PAUSE, LONGEST_PAUSE)

    def begin(self) -> None:
        """Have a task write it, unless one does."""
        if self.task is None or self.task.done():
            self.task = asyncio.get_running_loop().create_task(self._run(), context=self._context.copy())

    async def _run(self) -> None:
        if await self.drain():
            self._pause.reset()
            self._touch.returned()
            return
        # Whether the log is there at all is for a heartbeat to find out.
        self._want()
        await asyncio.sleep(self._pause.take())
        self._want()

    async def drain(self) -> bool:
        """Write it now; False where the log was out of reach, or would not take what came first."""
        shared = self._shared
        while True:
            with shared.lock:
                due = shared.backlog.due()
            if due is None:
                return True
            try:
                line = await self._write(Proposal(due.tags, due.soft, shared.causes(due)))
            except LogUnavailable:
                with shared.lock:
                    shared.backlog.postpone(due)
                return False
            with shared.lock:
                for fence in shared.backlog.written(due):
                    shared.replica.lift(fence)
            self._touch.delivered += len(due.entries)
            shared.observer.numbered(line)
