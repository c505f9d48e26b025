"""One request on its way to the app, and its response on the way back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_cacheinval.core.decide import Reason
from fastapi_cacheinval.core.outcome import Outcome, Result
from fastapi_cacheinval.core.recipe import Recipe
from fastapi_cacheinval.core.stored import Stamp, StoredResponse
from fastapi_cacheinval.engine.flights import Flight
from fastapi_cacheinval.engine.request_tags import Answering, Changes, RequestTags
from fastapi_cacheinval.engine.runtime import Runtime
from fastapi_cacheinval.framework.answering import send_stored, status_fields
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.cdn_fields import CDNFields
from fastapi_cacheinval.framework.server_spans import name_route
from fastapi_cacheinval.ports.store import Target
from fastapi_cacheinval.ports.tracing import Seen
from fastapi_cacheinval.routes.plan import RoutePlan

__all__ = ["Exchange", "FillSource", "RefreshOrder", "nowhere"]

logger = logging.getLogger("fastapi_cacheinval.middleware")

Sink = Callable[[Message], Awaitable[None]]


@dataclass(slots=True)
class RefreshOrder:
    """What makes an exchange a background refresh: the flight it leads, how it ended, and the fields of its answer."""

    flight: Flight
    outcome: str = "failed"
    answered: list[tuple[bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes]])

    async def hear(self, message: Message) -> None:
        """Take what the app says, in place of a client: only how long it asks to be left alone is of use."""
        if message["type"] == "http.response.start":
            self.answered = [(name.lower(), value) for name, value in message.get("headers", ())]


class Exchange:
    """What every request through the middleware has, safe or not.

    `send` and `receive` are what the app is given; each passes to a part that can be changed on the
    way. Until something asks for more, both pass straight through.
    """

    # Defaults of the class, set on the few exchanges that need them: most requests are for routes without a policy.
    plan: RoutePlan | None = None
    refresh: RefreshOrder | None = None
    tended: bool = False
    # What else there is to say of a forward: that the shared tier could not be asked.
    detail: str | None = None
    # The request as tracing sees it, where anybody records.
    seen: Seen | None = None
    # Where the answer leaves, if a CDN in front is told about it.
    cdn_fields: CDNFields | None = None
    # What code without the request at hand finds it by.
    answering: Answering | None = None
    _bag: RequestTags | None = None

    def __init__(
        self,
        app_context: AppContext,
        runtime: Runtime,
        scope: Scope,
        receive: Receive,
        send: Send,
        refresh: RefreshOrder | None = None,
    ) -> None:
        self.app_context = app_context
        self.runtime = runtime
        # As it came: the app's layers write into the scope they are given, and into its headers.
        self.arrived = dict(scope)
        if scope.get("state"):
            self.arrived["state"] = dict(scope["state"])
        self.client_headers: list[tuple[bytes, bytes]] = [*scope["headers"]]
        self.scope = scope
        app_context.note_root(scope)
        self.outer = send
        self._sent_by = send
        self.sink: Sink = send
        self.source: Receive = receive
        # Before any dependency runs: what is read from here on is at least this new.
        self.mark = app_context.engine.replica.mark
        self.began = app_context.engine.now()
        if refresh is not None:
            self.refresh = refresh
        if isinstance(send, CDNFields):
            self.cdn_fields = send
        if app_context.cache.tracing.on:
            self.seen = app_context.cache.tracing.enter(self.client_headers)

    # A plain method that returns the sink's awaitable: no frame of its own on the way out.
    def send(self, message: Message) -> Awaitable[None]:
        return self.sink(message)

    def receive(self) -> Awaitable[Message]:
        return self.source()

    @property
    def stamp(self) -> Stamp:
        """What the request knew when it entered."""
        return Stamp(*self.mark, self.began)

    @property
    def tags(self) -> RequestTags:
        """The tags collected while answering."""
        return self.request_tags()

    def request_tags(self) -> RequestTags:
        """The tags collected while answering, made when first asked for."""
        if self._bag is None:
            self._bag = RequestTags(self.app_context.counters.dropped_tag)
        return self._bag

    @property
    def changes(self) -> Changes | None:
        """Where the tags go of what an unsafe request commits."""
        return None

    @property
    def route(self) -> str | None:
        """The route's template, once known."""
        return None if self.plan is None else self.plan.path

    async def enter(self, handle: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """The request has come to its route, past all that stands before it."""
        await handle(scope, receive, send)

    def leading(self, target: Target | None, key: bytes) -> Target | None:
        """The raw target, where it may lead to what is stored under the key as soon as something is."""
        return target

    @property
    def server(self) -> Send:
        """The `send` that came with the request."""
        return self._sent_by if self.cdn_fields is None else self.cdn_fields.server

    @property
    def trace(self) -> str:
        """The `traceparent` of the request, empty where nobody records it."""
        return "" if self.seen is None else self.seen.trace

    def current(self) -> AbstractContextManager[None]:
        """Make the request's span the parent of what follows, wherever that runs."""
        return nullcontext() if self.seen is None else self.seen.current()

    def looks_up(self) -> None:
        """The request turns out to be cacheable."""
        if self.seen is not None and self.refresh is None:
            self.seen.cacheable()

    def bypass(self, detail: str) -> None:
        """Let the app answer, and say why the cache did not."""
        self.app_context.counters.forwarded(Reason.BYPASS, self.route)
        self.annotate(Outcome(Result.BYPASS, reason=Reason.BYPASS, detail=detail))

    def annotate(self, outcome: Outcome) -> None:
        """Let the app's answer through with how it came."""
        self.sink = _Annotated(self, outcome)

    def answer(self, stored: StoredResponse, outcome: Outcome) -> None:
        """Send a stored response in place of whatever the app's layers make of the unwinding."""
        self.sink = _Stored(self, stored, outcome)

    def order_refresh(self, stored: StoredResponse) -> None:
        """Have a stored response refreshed in the background, if nobody is at it."""
        raise NotImplementedError

    def order_forward(self, key: bytes) -> bool:
        """Have this request forwarded once more in the background, as the leader of the key; whether it is."""
        raise NotImplementedError

    async def done(self) -> None:
        """The app has returned; called where the exchange is `tended`."""

    async def failed(self, error: BaseException) -> bool:
        """The app has raised; whether the client was answered all the same. Called where it is `tended`."""
        return False

    async def answered_anyway(self, error: BaseException) -> bool:
        """The app has raised; whether the client has a stored response that was on its way, all the same.

        So do dependencies that turn the unwinding's `HTTPException` into an error, or swallow it.
        """
        if not isinstance(self.sink, _Stored) or not isinstance(error, Exception):
            return False
        self.log_trouble("the app raised while it was unwound for a stored response", error)
        await self.sink({"type": "http.response.start"})
        return True

    def log_trouble(self, message: str, error: BaseException) -> None:
        """Log an error that no client sees: once, until the route is well again."""
        route = self.route
        level = self.app_context.log_once.level((message, route))
        logger.log(level, "%s (%s)", message, route, exc_info=error, extra={"http.route": route})

    def outdate(self, recipe: Recipe) -> None:
        """Let go of what is stored, here and where replicas share it: the app has just said otherwise."""
        key = self.app_context.engine.outdated(recipe)
        if self.runtime.l2 is not None:
            self.runtime.l2.drop(key)

    def swallow(self) -> None:
        """The client has its answer: drop what else the app sends."""
        self.sink = nowhere

    def told(
        self, outcome: Outcome, stored: StoredResponse | None = None, *, filled: StoredResponse | None = None
    ) -> None:
        """Count the outcome, and say it of the request's span and to the CDN in front; before the answer begins.

        `stored` is what it is answered with, if so; `filled` what has become of the app's answer.
        """
        if self.refresh is not None:
            return
        if self.cdn_fields is not None:
            self.cdn_fields.answered(outcome, stored or filled, self.plan)
        route = self.route if stored is None or stored.route is None else stored.route
        self.app_context.counters.answered(outcome, route)
        if self.app_context.observed:
            self.described(outcome, stored)
            if route is not None:
                name_route(self.scope, self.server, route, routed=self.plan is not None)

    def described(self, outcome: Outcome, stored: StoredResponse | None = None) -> None:
        """Say the outcome of the request's span."""
        if self.seen is not None:
            self.seen.answered(outcome, "" if stored is None else stored.trace)


class FillSource:
    """A `receive` for fills: one empty body, then nothing, since a disconnect would cut the response short.

    Once nothing is kept it hears the client again, or a stream without an end would outlive it.
    """

    def __init__(self, client: Receive | None = None) -> None:
        self._client = client
        self._given = False
        self._released: asyncio.Event = asyncio.Event()

    async def __call__(self) -> Message:
        if not self._given:
            self._given = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._released.wait()
        assert self._client is not None
        return await self._client()

    def release(self) -> None:
        """Let the app hear the client, if there is one."""
        if self._client is not None:
            self._released.set()


async def nowhere(message: Message) -> None:
    """Where messages go that nobody needs."""


class _Annotated:
    """Adds how an answer came to its fields, and is gone."""

    def __init__(self, exchange: Exchange, outcome: Outcome) -> None:
        self._exchange = exchange
        self._outcome = outcome

    async def __call__(self, message: Message) -> None:
        exchange = self._exchange
        if message["type"] == "http.response.start":
            exchange.sink = exchange.outer
            exchange.told(self._outcome)
            fields = [*message.get("headers", ()), *status_fields(exchange.app_context, self._outcome)]
            message = {**message, "headers": fields}
        await exchange.outer(message)


class _Stored:
    """Sends exactly the stored response when the unwinding's own answer begins."""

    def __init__(self, exchange: Exchange, stored: StoredResponse, outcome: Outcome) -> None:
        self._exchange = exchange
        self._stored = stored
        self._outcome = outcome

    async def __call__(self, message: Message) -> None:
        exchange = self._exchange
        if message["type"] == "http.response.start":
            exchange.swallow()
            exchange.told(self._outcome, self._stored)
            await send_stored(
                exchange.outer, exchange.app_context, self._stored, exchange.client_headers, self._outcome
            )
