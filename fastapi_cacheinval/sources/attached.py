"""The life that all which is attached to a cache has in common: a task that does not end while the cache runs."""

from __future__ import annotations

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from contextvars import Context
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, cast

from fastapi_cacheinval.cache import HTTPCache
from fastapi_cacheinval.core.statistics import SourceState
from fastapi_cacheinval.engine.clocks import DoublingPause
from fastapi_cacheinval.errors import CacheNotRunning, ConfigurationError
from fastapi_cacheinval.sources.seldom import OnceAMinute
from fastapi_cacheinval.sources.waiting import ended

__all__ = ["FIRST_PAUSE", "LONGEST_PAUSE", "Attached", "DoublingPause"]

logger = logging.getLogger("fastapi_cacheinval.contrib")

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0
# What ends the process, not an attempt.
_LAST = (KeyboardInterrupt, SystemExit, GeneratorExit)


class Attached(ABC):
    """An async context manager around one task, for `cache.attach`, or alone: `await source.run()` in a worker.

    A subclass gives `serve`, which works until it raises. It is begun again after a pause that doubles from a tenth of
    a second to half a minute, with jitter, and from the start after `well`. `name` tells what is attached apart in
    `statistics().sources` and in the metrics. Raises `ConfigurationError` for a cache that is none and for a name that
    is empty.
    """

    def __init__(self, cache: HTTPCache, name: str) -> None:
        if not isinstance(cache, HTTPCache):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"{type(self).__name__} takes the HTTPCache that it works for, not {cache!r}.")
        if not isinstance(name, str) or not name:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"{type(self).__name__} takes a name that statistics can tell, not {name!r}.")
        self.cache = cache
        self.name = name
        self._state = SourceState()
        self._task: asyncio.Task[None] | None = None
        self._pause = DoublingPause(FIRST_PAUSE, LONGEST_PAUSE)
        self._refusals = OnceAMinute(logger, cache.clock)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {'running' if self._state.running else 'stopped'}>"

    def state(self) -> SourceState:
        """How it stands."""
        return self._state

    # -- life -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        # A loop that was closed under it has taken its task along.
        if self._task is not None and not self._task.done() and not self._task.get_loop().is_closed():
            raise ConfigurationError(f"{self!r} runs already: attach it, or enter it, once.")
        if not self.cache.running:
            raise CacheNotRunning(f"{self!r} works for a cache that does not run here: attach it to that cache.")
        self._pause.reset()
        self.note(running=True, connected=False, trouble="")
        # In nobody's context: the cache may be started by a request, and what comes in later is not that caller's.
        self._task = asyncio.get_running_loop().create_task(
            self._live(), name=f"cacheinval {self.name}", context=Context()
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait((task,))
        if task is not None and not task.cancelled():
            # Looked at, so that nothing complains that nobody has.
            task.exception()
        self._refusals.close()
        self.note(running=False, connected=False)

    async def run(self) -> None:
        """Work until cancelled, in a process that serves nothing: the cache is started for it."""
        async with self.cache, self:
            assert self._task is not None
            await self._task

    # -- work -----------------------------------------------------------------------------------

    @abstractmethod
    async def serve(self) -> None:
        """Connect and work; whatever it raises is logged once, and it is called again."""

    async def _live(self) -> None:
        try:
            while True:
                error = await self._attempt()
                if error is not None:
                    if _ends_the_process(error):
                        raise error
                    # Also what is no Exception: a future that its client cancelled by itself, a panic of native code.
                    self.troubled(error)
                self.note(connected=False)
                await self.rest(self._pause.take() * random.uniform(0.5, 1.0))  # noqa: S311  # spreads, hides nothing
        finally:
            self.note(running=False, connected=False)

    async def _attempt(self) -> BaseException | None:
        """Serve, until it ends; what it raised.

        In a task of its own: one that is cancelled by its client, or cancels itself as a group of tasks does, is told
        from the end of the source, and so is a cancellation that a client swallows.
        """
        attempt = asyncio.get_running_loop().create_task(self.serve(), name=f"cacheinval {self.name} at work")
        try:
            await asyncio.wait((attempt,))
        except asyncio.CancelledError:
            await ended(attempt, whatever=True)
            error = _error_of(attempt)
            if isinstance(error, Exception):
                logger.warning("%s failed while it stopped: %s", self.name, _told(error))
            raise
        return _error_of(attempt)

    async def rest(self, seconds: float, woken: asyncio.Event | None = None) -> None:
        """Wait for so long on the cache's clock, or until it is woken by an event, which is set in either case."""
        rung = asyncio.Event() if woken is None else woken
        alarm = self.cache.clock.call_later(seconds, rung.set)
        try:
            await rung.wait()
        finally:
            alarm.cancel()

    # -- what it tells --------------------------------------------------------------------------

    def note(self, **changed: Any) -> None:
        """Change fields of the state."""
        self._state = replace(self._state, **changed)

    def count(self, *, received: int = 0, done: int = 0, refused: int = 0) -> None:
        """Add to the counts of the state."""
        state = self._state
        self.note(received=state.received + received, done=state.done + done, refused=state.refused + refused)

    def refuse(self, text: str, count: int = 1) -> None:
        """So many events cannot be read; `text` says why and what becomes of them, in the log at most once a minute."""
        self.count(refused=count)
        self._refusals.tell(text)

    def well(self) -> None:
        """It is in touch, and has brought something to its end."""
        self._pause.reset()
        self.reached()

    def reached(self) -> None:
        """It is in touch; pauses between attempts go on growing until it is `well`."""
        if self._state.trouble:
            logger.info("%s works again", self.name)
        if self._state.trouble or not self._state.connected:
            self.note(connected=True, trouble="")

    def troubled(self, error: BaseException) -> None:
        """An attempt has failed; said once, until it is well again."""
        told = _told(error)
        level = logging.DEBUG if self._state.trouble else logging.ERROR
        logger.log(level, "%s is in trouble and tries again: %s", self.name, told)
        self.note(failures=self._state.failures + 1, trouble=told)


def _error_of(task: asyncio.Task[None]) -> BaseException | None:
    try:
        return task.exception()
    except asyncio.CancelledError as error:
        return error


def _within(error: BaseException) -> tuple[BaseException, ...]:
    """The errors of a group, nothing for an error that is none."""
    return cast("BaseExceptionGroup[BaseException]", error).exceptions if isinstance(error, BaseExceptionGroup) else ()


def _ends_the_process(error: BaseException) -> bool:
    return isinstance(error, _LAST) or any(map(_ends_the_process, _within(error)))


def _told(error: BaseException) -> str:
    """What an error says, of a group the first of its errors."""
    while inner := _within(error):
        error = inner[0]
    return f"{type(error).__name__}: {error}"[:500]
