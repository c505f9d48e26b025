"""Clients that wait for a slow handler: past a policy's timeouts they have another answer, and the handler goes on."""

from __future__ import annotations

import asyncio
from functools import partial

from starlette.types import Message, Send

from fastapi_cacheinval.core.outcome import Outcome, Reason, Result
from fastapi_cacheinval.core.policy import CachePolicy
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.engine.coalescing import Go
from fastapi_cacheinval.framework.exchange import Exchange
from fastapi_cacheinval.framework.filling import Fill
from fastapi_cacheinval.framework.responding import send_504, send_stored

__all__ = ["SLOW", "Timed"]

SLOW = "slow"
"""The detail of an answer that was given in place of a handler that took too long."""


class Timed:
    """A fill under its policy's timeouts: its client is answered while the app has not begun to."""

    def __init__(self, exchange: Exchange, fill: Fill, policy: CachePolicy, go: Go) -> None:
        self._exchange = exchange
        self._fill = fill
        self._go = go
        self._sending: asyncio.Task[None] | None = None
        clock, engine = exchange.app_context.cache.clock, exchange.app_context.engine
        waited = engine.now() - exchange.stamp.began
        self._alarms = [
            clock.call_later(max(0.0, timeout - waited), partial(self._ring, hard=hard))
            for timeout, hard in ((policy.soft_seconds, False), (policy.hard_seconds, True))
            if timeout is not None
        ]

    def _ring(self, *, hard: bool) -> None:
        engine = self._exchange.app_context.engine
        stale = engine.fallback(self._go.stale, engine.now())
        # From here on the app's messages go nowhere, so that none of them can come between.
        send = self._fill.take_client() if hard or stale is not None else None
        if send is not None:
            self._sending = self._exchange.runtime.own(self._answer(send, stale))

    async def _answer(self, send: Send, stale: StoredResponse | None) -> None:
        exchange, app_context = self._exchange, self._exchange.app_context
        engine = app_context.engine
        if stale is None:
            outcome = Outcome(Result.MISS, reason=self._go.reason, detail=SLOW)
            exchange.told(outcome)
            await send_504(send, app_context, outcome)
            return
        outcome = engine.outcome(stale, Result.STALE, Reason.STALE, engine.now())._replace(detail=SLOW)
        exchange.told(outcome, stale)
        await send_stored(send, app_context, stale, exchange.client_headers, outcome)

    async def __call__(self, message: Message) -> None:
        """Take one message of the app's."""
        await self._fill(message)

    async def ended(self) -> None:
        """The app has returned."""
        await self._answered()
        await self._fill.ended()

    async def failed(self, error: BaseException) -> bool:
        """The app has raised; True where the client has its answer all the same."""
        if isinstance(error, Exception):
            await self._answered()
        return await self._fill.failed(error)

    async def _answered(self) -> None:
        for alarm in self._alarms:
            alarm.cancel()
        if self._sending is not None:
            # A client that has left, or a server that refuses, is its own affair.
            await asyncio.wait((self._sending,))
