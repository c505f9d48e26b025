"""Purges that wait for each other are written together: as many as are made meanwhile cost one exchange with the log.

The rules: where nothing is under way a purge is written at once; what comes while one is written shares the next line,
which is written when that one is back, or a few milliseconds later where it does not come back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from functools import partial

from fastapi_cacheinval.core.log_types import LogEntry
from fastapi_cacheinval.core.pieces import LINE_TAG_BYTES, LINE_TAGS
from fastapi_cacheinval.core.tag_limits import size_of
from fastapi_cacheinval.engine.clocks import ended
from fastapi_cacheinval.errors import LogUnavailable
from fastapi_cacheinval.ports.log import Proposal

__all__ = ["LogGroups"]

_LONGEST_WAIT = 0.005
_MOST_TRACES = 16


class _Group:
    """Purges that will share a line; what becomes of that is `written`."""

    __slots__ = ("count", "prompt", "size", "soft", "tags", "trace", "traces", "written")

    def __init__(self, *, soft: bool) -> None:
        self.soft = soft
        self.tags: dict[str, None] = {}
        self.size = 0
        self.count = 0
        self.prompt = False
        self.trace: tuple[tuple[str, str], ...] = ()
        self.traces = 0
        self.written: asyncio.Future[LogEntry] = asyncio.get_running_loop().create_future()

    def takes(self, proposal: Proposal, size: int) -> bool:
        """Whether there is room for one more."""
        return len(self.tags) + len(proposal.tags) <= LINE_TAGS and self.size + size <= LINE_TAG_BYTES

    def add(self, proposal: Proposal, size: int) -> None:
        """Take one in."""
        self.tags.update(dict.fromkeys(proposal.tags))
        self.size += size
        self.count += 1
        self.prompt = self.prompt or proposal.prompt
        if proposal.trace and self.traces < _MOST_TRACES:
            self.traces += 1
            self.trace += proposal.trace

    def line(self) -> Proposal:
        """The line that they share."""
        return Proposal(tuple(self.tags), self.soft, self.trace, self.prompt, self.count)


class LogGroups:
    """One follower's purges on their way to `write`, which writes one and raises `LogUnavailable`."""

    def __init__(self, write: Callable[[Proposal], Awaitable[LogEntry]], context: Context) -> None:
        self._write = write
        self._context = context
        self._under_way = 0
        self._waiting: list[_Group] = []
        self._alarm: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def write(self, proposal: Proposal) -> LogEntry:
        """Write a purge, alone or with others; raises what `write` does."""
        size = size_of(proposal.tags)
        if not self._under_way or len(proposal.tags) > LINE_TAGS or size > LINE_TAG_BYTES:
            self._under_way += 1
            try:
                return await self._write(proposal)
            finally:
                self._returned()
        group = next(
            (each for each in self._waiting if each.soft == proposal.soft and each.takes(proposal, size)), None
        )
        if group is None:
            group = _Group(soft=proposal.soft)
            self._waiting.append(group)
            if self._alarm is None:
                self._alarm = asyncio.get_running_loop().call_later(_LONGEST_WAIT, self._flush)
        group.add(proposal, size)
        line = await asyncio.shield(group.written)
        return line._replace(tags=proposal.tags, trace=proposal.trace, prompt=proposal.prompt, purges=proposal.purges)

    def _returned(self) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._flush()

    def _flush(self) -> None:
        """Write all that waits."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        groups, self._waiting = self._waiting, []
        for group in groups:
            self._under_way += 1
            task = asyncio.get_running_loop().create_task(self._together(group), context=self._context.copy())
            self._tasks.add(task)
            task.add_done_callback(partial(self._ended, group))

    async def _together(self, group: _Group) -> None:
        try:
            line = await self._write(group.line())
            group.written.set_result(line)
        except LogUnavailable as away:
            group.written.set_exception(away)

    def _ended(self, group: _Group, task: asyncio.Task[None]) -> None:
        """A task is over, perhaps cancelled before its first step."""
        self._tasks.discard(task)
        if not group.written.done():
            group.written.set_exception(LogUnavailable("the cache has stopped"))
        # Where nobody waits any more, nobody is to be told of it later.
        group.written.exception()
        self._returned()

    async def close(self) -> None:
        """End what is under way; never raises."""
        await ended(tuple(self._tasks))
