"""What takes the app's response: one object per request, which may be replaced until the response has begun.

Each kind has one way to take a message, one to learn that the app has returned, and one to learn that it has raised.
The kinds: passed on as it is (`Direct`), passed on with how it came (`Annotated`), replaced by a stored response
(`Stored`); in their own modules a fill, what layers have made of a response, a HEAD that updates what is stored, and a
mutation that is held until its commit. All of them write answers by the functions below.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette.types import Message, Scope, Send

from fastapi_cacheinval.core.client_lifetime import client_fields
from fastapi_cacheinval.core.conditional import CONDITIONAL_FIELDS, not_modified, not_modified_fields
from fastapi_cacheinval.core.outcome import Outcome, Reason, Result, cache_status
from fastapi_cacheinval.core.private_answers import made_private, says_shared
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.exchange import Exchange
from fastapi_cacheinval.framework.messages import SENT_PAST, MessageOrder
from fastapi_cacheinval.grammar.age import serialise_age
from fastapi_cacheinval.grammar.fields import RawField, RawHeaders, lower_names
from fastapi_cacheinval.routes.plan import RoutePlan

__all__ = [
    "Annotated",
    "Direct",
    "PrivateAnswers",
    "Responder",
    "Stored",
    "bypassed",
    "hide_what_bypasses",
    "nowhere",
    "send_304",
    "send_504",
    "send_response",
    "send_stored",
    "status_fields",
    "stored_fields",
    "without_body",
    "without_conditions",
]


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
    """Sends exactly the stored response when the unwinding's own answer begins, and drops what the app sends.

    What is no part of that answer goes to the server, which says of it what it would without a cache.
    """

    __slots__ = ("_exchange", "_order", "_outcome", "_sent", "_stored")

    def __init__(self, exchange: Exchange, stored: StoredResponse, outcome: Outcome) -> None:
        self._exchange = exchange
        self._stored = stored
        self._outcome = outcome
        self._order = MessageOrder()
        self._sent = False

    async def __call__(self, message: Message) -> None:
        """Take one message of the app's."""
        if not self._order.take(message):
            if self._sent:
                await self._exchange.outer(message)
        elif message["type"] == "http.response.start" and not self._sent:
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


class PrivateAnswers:
    """A `send` that makes the answers of some routes private, whoever wrote their fields and however they came about.

    Both are asked when the answer begins: `known` gives the plan of the route that the request has come to, if it has;
    `plan` that of the route that answers, or would have, None where no route does.
    """

    __slots__ = ("_app_context", "_known", "_plan", "_send")

    def __init__(
        self,
        app_context: AppContext,
        send: Send,
        known: Callable[[], RoutePlan | None],
        plan: Callable[[], RoutePlan | None],
    ) -> None:
        self._app_context = app_context
        self._send = send
        self._known = known
        self._plan = plan

    # A plain method that returns an awaitable: no frame of its own on the way out.
    def __call__(self, message: Message) -> Awaitable[None]:
        """One message on its way out."""
        if message["type"] == "http.response.start" and message.get("headers"):
            message = self._made_private(message)
        return self._send(message)

    def _made_private(self, message: Message) -> Message:
        known = self._known()
        if known is not None and not known.private:
            return message
        fields = lower_names(message["headers"])
        made = made_private(fields)
        if made is None:
            return message
        plan = known or self._plan()
        if plan is None or not plan.private:
            return message
        shared = says_shared(fields)
        if shared is not None:
            self._app_context.notices.note_private(plan.path, shared)
        return {**message, "headers": made}


# -- writing answers ----------------------------------------------------------------------------


def status_fields(app_context: AppContext, outcome: Outcome) -> list[RawField]:
    """The `Cache-Status` field for an outcome, where it is wanted."""
    return [(b"cache-status", cache_status(outcome))] if app_context.emit_cache_status else []


async def send_304(send: Send, fields: list[RawField]) -> None:
    """Send the 304 that stands for a response with these fields."""
    await send({"type": "http.response.start", "status": 304, "headers": not_modified_fields(fields)})
    await send({"type": "http.response.body", "body": b""})


async def send_504(send: Send, app_context: AppContext, outcome: Outcome) -> None:
    """Send that no answer came in time, or that there is none without asking the app."""
    headers = [(b"content-length", b"0"), *status_fields(app_context, outcome)]
    await send({"type": "http.response.start", "status": 504, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def send_stored(
    send: Send, app_context: AppContext, stored: StoredResponse, request_headers: RawHeaders, outcome: Outcome
) -> None:
    """Send a stored response, or the 304 that stands for it."""
    await send_response(send, app_context, stored, request_headers, stored_fields(app_context, stored, outcome))


def stored_fields(app_context: AppContext, stored: StoredResponse, outcome: Outcome) -> list[RawField]:
    """The fields of an answer that is a stored response: its own, its age, and how it came."""
    age = max(0.0, outcome.age or 0.0)
    fields = client_fields(stored, age, -1 if outcome.ttl is None else outcome.ttl)
    if outcome.age is not None:
        fields.append((b"age", serialise_age(age)))
    return fields + status_fields(app_context, outcome)


async def send_response(
    send: Send, app_context: AppContext, stored: StoredResponse, request_headers: RawHeaders, fields: list[RawField]
) -> None:
    """Send a complete response with these fields, or the 304 that stands for it."""
    wall = app_context.cache.clock.wall()
    if not_modified(request_headers, stored.status, stored.etag, stored.last_modified, wall):
        await send_304(send, fields)
        return
    await send({"type": "http.response.start", "status": stored.status, "headers": fields})
    await send({"type": "http.response.body", "body": stored.body})


def without_conditions(headers: RawHeaders) -> list[RawField]:
    """The fields of a request without its conditions and ranges, which are answered from what is stored."""
    return [pair for pair in headers if pair[0] not in CONDITIONAL_FIELDS]


def hide_what_bypasses(scope: Scope) -> None:
    """Let the app see no extension by which its response would not pass `send`."""
    extensions = scope.get("extensions")
    if extensions and not SENT_PAST.isdisjoint(extensions):
        scope["extensions"] = {name: value for name, value in extensions.items() if name not in SENT_PAST}


def without_body(send: Send) -> Send:
    """A `send` for HEAD: the same fields, no content."""

    async def send_head(message: Message) -> None:
        kind = message["type"]
        if kind in SENT_PAST or (kind == "http.response.body" and message.get("body")):
            message = {"type": "http.response.body", "body": b"", "more_body": message.get("more_body", False)}
        await send(message)

    return send_head


async def nowhere(message: Message) -> None:
    """Where messages go that nobody needs."""
