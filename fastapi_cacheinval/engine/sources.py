"""What is tied to a cache's life: entered at its start, left at its stop."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

from fastapi_cacheinval.core.statistics import SourceState
from fastapi_cacheinval.errors import ConfigurationError

__all__ = ["Sources"]


class Sources:
    """Async context managers that live on one event loop at a time: the first that the cache is started on."""

    def __init__(self) -> None:
        self._sources: list[AbstractAsyncContextManager[Any]] = []
        self._entered: tuple[asyncio.AbstractEventLoop, AsyncExitStack] | None = None

    def attach(self, source: AbstractAsyncContextManager[Any]) -> None:
        """Add one; raises `ConfigurationError` after the start."""
        if self._entered is not None:
            raise ConfigurationError("The cache has started already: call cache.attach(source) before the app starts.")
        self._sources.append(source)

    @property
    def brings_purges(self) -> bool:
        """Whether any of them brings purges of what has changed elsewhere."""
        return any(getattr(source, "brings_purges", False) for source in self._sources)

    async def enter(self) -> None:
        """Enter them in order; raises what one raises, and has left those before it then."""
        # One loop that was closed under them has taken them along.
        if self._entered is not None and not self._entered[0].is_closed():
            return
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as entering:
            self._entered = (loop, entering)
            try:
                for source in self._sources:
                    await entering.enter_async_context(source)
            except BaseException:
                self._entered = None
                raise
            self._entered = (loop, entering.pop_all())

    async def leave(self) -> None:
        """Leave them, if they were entered on this loop."""
        if self._entered is not None and self._entered[0] is asyncio.get_running_loop():
            (_, entered), self._entered = self._entered, None
            await entered.aclose()

    def states(self) -> dict[str, object]:
        """The state of each that tells one, else the thing itself, by its `name`, or by type and place."""
        found: dict[str, object] = {}
        for index, source in enumerate(self._sources):
            given = getattr(source, "name", None)
            own = given if isinstance(given, str) else f"{type(source).__name__}-{index}"
            name, number = own, index
            while name in found:
                name, number = f"{own}-{number}", number + 1
            state = getattr(source, "state", None)
            told = state() if callable(state) else None
            found[name] = told if isinstance(told, SourceState) else source
        return found
