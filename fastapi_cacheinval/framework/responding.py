"""What takes the app's response: one object per request, which may be replaced until the response has begun.

Each kind has one way to take a message, one to learn that the app has returned, and one to learn that it has raised.
The kinds: passed on as it is (`Direct`), passed on with how it came (`Annotated`), replaced by a stored response
(`Stored`); in their own modules a fill, what layers have made of a response, a HEAD that updates what is stored, and a
mutation that is held until its commit.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from starlette.types import Message, Send

from fastapi_cacheinval.core.outcome import Outcome, Reason, Result
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.framework.answering import send_stored, status_fields
from fastapi_cacheinval.framework.exchange import Exchange

__all__ = ["Annotated", "Direct", "Responder", "Stored", "bypassed"]


class Responder(Protocol):
    """What takes the messages of one response."""

    def __call__(self, message: Message) -> Awaitable[None]:
        """Take one message of the app's."""
        ...

    async def ended(self) -> None:
        """The app has returned."""
        ...

    async def failed(self, error: BaseException) -> bool:
        """The app has raised, or was cancelled; True where the client has its answer all the same."""
        ...


class Direct:
    """Passes the response on as it is."""

    __slots__ = ("_send",)

    def __init__(self, send: Send) -> None:
        self._send = send

    # A plain method that returns what the client's `send` gives: no frame of its own on the way out.
    def __call__(self, message: Message) -> Awaitable[None]:
        """Take one message of the app's."""
        return self._send(message)

    async def ended(self) -> None:
        """Nothing is left to do."""

    async def failed(self, error: BaseException) -> bool:
        """The error is the app's to answer."""
        return False


class Annotated(Direct):
    """Passes the response on, and writes into its fields how it came."""

    __slots__ = ("_exchange", "_outcome")

    def __init__(self, exchange: Exchange, outcome: Outcome) -> None:
        super().__init__(exchange.outer)
        self._exchange = exchange
        self._outcome = outcome

    def __call__(self, message: Message) -> Awaitable[None]:
        """Take one message of the app's."""
        if message["type"] == "http.response.start":
            self._exchange.told(self._outcome)
            fields = [*message.get("headers", ()), *status_fields(self._exchange.app_context, self._outcome)]
            message = {**message, "headers": fields}
        return self._send(message)


def bypassed(exchange: Exchange, detail: str) -> Annotated:
    """The app answers, and its answer says why the cache did not."""
    exchange.app_context.counters.forwarded(Reason.BYPASS, exchange.route)
    return Annotated(exchange, Outcome(Result.BYPASS, reason=Reason.BYPASS, detail=detail))


class Stored:
    """Sends exactly the stored response when the unwinding's own answer begins, and drops what the app sends."""

    __slots__ = ("_exchange", "_outcome", "_sent", "_stored")

    def __init__(self, exchange: Exchange, stored: StoredResponse, outcome: Outcome) -> None:
        self._exchange = exchange
        self._stored = stored
        self._outcome = outcome
        self._sent = False

    async def __call__(self, message: Message) -> None:
        """Take one message of the app's."""
        if message["type"] == "http.response.start" and not self._sent:
            await self._send()

    async def _send(self) -> None:
        exchange = self._exchange
        self._sent = True
        exchange.told(self._outcome, self._stored)
        await send_stored(exchange.ours, exchange.app_context, self._stored, exchange.client_headers, self._outcome)

    async def ended(self) -> None:
        """Send the stored response all the same: a layer may swallow the unwinding and answer nothing."""
        if not self._sent:
            await self._send()

    async def failed(self, error: BaseException) -> bool:
        """Send the stored response all the same: dependencies may turn the unwinding's exception into an error."""
        if self._sent or not isinstance(error, Exception):
            return False
        self._exchange.log_trouble("the app raised while it was unwound for a stored response", error)
        await self._send()
        return True
