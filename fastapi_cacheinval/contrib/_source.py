"""The life that all which is attached to a cache has in common: a task that does not end while the cache runs."""

from __future__ import annotations

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from fastapi_cacheinval import ConfigurationError, HTTPCache, SourceState

__all__ = ["Source"]

logger = logging.getLogger("fastapi_cacheinval.contrib")

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 30.0
# Real seconds after which a task that has been cancelled is cancelled again.
_AGAIN = 0.25


class Source(ABC):
    """An async context manager around one task, for `cache.attach`, or alone: `await source.run()` in a worker.

    A subclass gives `_serve`, which works until it raises; it is begun again after a pause that doubles from a tenth of
    a second to half a minute, with jitter, and from the start after `_well`. `name` tells sources apart in
    `statistics().sources` and in the metrics.
    """

    def __init__(self, cache: HTTPCache, name: str) -> None:
        if not isinstance(cache, HTTPCache):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"{type(self).__name__} takes the HTTPCache that it works for, not {cache!r}.")
        self.cache = cache
        self.name = name
        self._state = SourceState()
        self._task: asyncio.Task[None] | None = None
        self._pause = _FIRST_PAUSE

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {'running' if self._state.running else 'stopped'}>"

    def state(self) -> SourceState:
        """How it stands."""
        return self._state

    # -- life -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise ConfigurationError(f"{self!r} runs already: attach it, or enter it, once.")
        self._task = asyncio.get_running_loop().create_task(self._live(), name=f"cacheinval {self.name}")
        self._note(running=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        while task is not None and not task.done():
            # More than once where need be: clients may swallow a cancellation.
            task.cancel()
            await asyncio.wait((task,), timeout=_AGAIN)
        self._note(running=False, connected=False)

    async def run(self) -> None:
        """Work until cancelled, in a process that serves nothing: the cache is started for it."""
        async with self.cache, self:
            assert self._task is not None
            await self._task

    # -- work -----------------------------------------------------------------------------------

    @abstractmethod
    async def _serve(self) -> None:
        """Connect and work; whatever it raises is logged once, and it is called again."""

    async def _live(self) -> None:
        while True:
            try:
                await self._serve()
            except Exception as error:  # noqa: BLE001  # whatever its client raises: it is said, and tried again
                self._failed(error)
            self._note(connected=False)
            await self._rest(self._pause * random.uniform(0.5, 1.0))  # noqa: S311  # spreads, hides nothing
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    async def _rest(self, seconds: float) -> None:
        """Wait for so long on the cache's clock."""
        rung = asyncio.Event()
        alarm = self.cache.clock.call_later(seconds, rung.set)
        try:
            await rung.wait()
        finally:
            alarm.cancel()

    # -- what it tells --------------------------------------------------------------------------

    def _note(self, **changed: Any) -> None:
        self._state = replace(self._state, **changed)

    def _count(self, *, received: int = 0, done: int = 0, refused: int = 0) -> None:
        state = self._state
        self._note(received=state.received + received, done=state.done + done, refused=state.refused + refused)

    def _well(self) -> None:
        """It is in touch, and has brought something to its end."""
        self._pause = _FIRST_PAUSE
        if self._state.trouble:
            logger.info("%s works again", self.name)
        if self._state.trouble or not self._state.connected:
            self._note(connected=True, trouble="")

    def _failed(self, error: BaseException) -> None:
        """An attempt has failed; said once, until it is well again."""
        level = logging.DEBUG if self._state.trouble else logging.ERROR
        logger.log(level, "%s is in trouble and tries again: %s: %s", self.name, type(error).__name__, error)
        self._note(failures=self._state.failures + 1, trouble=f"{type(error).__name__}: {error}"[:500])
