"""Says beside the log which routes this replica serves, and warns where another service has taken the namespace.

It begins one lease after the start and asks three times an hour. Nothing waits for it, and nothing fails by it.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context

from fastapi_cacheinval.core.route_sets import RouteSet
from fastapi_cacheinval.engine.apps import Apps
from fastapi_cacheinval.engine.clocks import ended, paused
from fastapi_cacheinval.errors import TierUnavailable
from fastapi_cacheinval.ports.clock import Clock
from fastapi_cacheinval.ports.roll import Roll

__all__ = ["RollCall"]

logger = logging.getLogger("fastapi_cacheinval.cache")

_PAUSE = 1200.0


class RollCall:
    """One event loop's part in the roll; `delay` is the seconds before its first word."""

    def __init__(self, roll: Roll, apps: Apps, clock: Clock, *, namespace: str, delay: float) -> None:
        self._roll = roll
        self._apps = apps
        self._clock = clock
        self._namespace = namespace
        self._delay = delay
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, in no request's context."""
        self._task = asyncio.get_running_loop().create_task(self._run(), context=Context())

    async def close(self) -> None:
        """End; never raises."""
        task, self._task = self._task, None
        if task is not None:
            await ended((task,))

    async def _run(self) -> None:
        await paused(self._clock, self._delay)
        while True:
            await self.call()
            await paused(self._clock, _PAUSE)

    async def call(self) -> None:
        """Say the routes once, and warn of each service that has none of them; once for each."""
        own = self._apps.route_set
        if not own.digests:
            return
        try:
            others = await self._roll.answer(own.name, own.encode())
        except TierUnavailable as error:
            logger.debug("the route sets of the namespace are not known: %s", error)
            return
        for name, data in others.items():
            other = RouteSet.decode(data)
            if other is not None and own.is_another_service(other) and self._apps.first_heard(name):
                logger.warning(
                    "Another service uses the namespace %r: it serves %r, and none of this app's routes. The two share "
                    "purges and clear(). Give each service a namespace of its own: HTTPCache.from_url(url, "
                    "namespace=...).",
                    self._namespace,
                    other.example,
                )
