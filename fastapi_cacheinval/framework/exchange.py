"""One request on its way to the app, and its response on the way back."""

from __future__ import annotations

import logging
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_cacheinval.core.outcome import Outcome, Result
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.dependencies import SCOPE_KEY
from fastapi_cacheinval.engine.request_tags import Answering, Changes, RequestTags
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.deciding import tell_decision
from fastapi_cacheinval.framework.incoming import Entered, Incoming
from fastapi_cacheinval.framework.messages import Passage
from fastapi_cacheinval.framework.receiving import Receiving
from fastapi_cacheinval.framework.server_spans import contrib_outside, name_route
from fastapi_cacheinval.routes.fastapi_private import on_end
from fastapi_cacheinval.routes.plan import RoutePlan

__all__ = ["Exchange", "can_be_read_again", "forget_parsed_fields", "run_app"]

logger = logging.getLogger("fastapi_cacheinval.middleware")
_Spares = Callable[[StoredResponse], bool]


class Exchange:
    """What is known of one request, and what is said of it: to the counters, to its span, to a CDN in front.

    It takes no message of the app's: that is for its responder.
    """

    # Defaults of the class, set on the few exchanges that need them: most requests are for routes without a policy.
    plan: RoutePlan | None = None
    # What code without the request at hand finds it by.
    answering: Answering | None = None
    # Of a lookup: the key that it asked for, the raw target that may lead to what is stored under it, and the tags that
    # are known before the app answers.
    key: bytes | None = None
    target: tuple[object, ...] | None = None
    declared_tags: tuple[str, ...] = ()
    # Whether the cache was asked, and whether it has been said what came of that.
    _asked: bool = False
    _told: bool = False
    _request_tags: RequestTags | None = None
    # Whether what its route says may be stored, and each response that a route has begun or may begin.
    stores: bool = False
    passages: tuple[Passage, ...] = ()

    def __init__(self, incoming: Incoming, entered: Entered | None = None) -> None:
        self.incoming = incoming
        # What it was when it came, where that was before: what follows may be another stage of the same request.
        self.entered = entered = _as_it_came(incoming) if entered is None else entered
        self.arrived, self.client_headers, self.stamp, self.seen, self.contrib = entered
        self.app_context = incoming.app_context
        self.runtime = incoming.runtime
        self.scope = incoming.scope
        self.app_context.note_root(self.arrived)
        self.outer = incoming.send
        # Where the answer leaves, if a CDN in front is told about it.
        self.cdn_fields = incoming.cdn_fields
        self.refresh = incoming.order
        # A refresh has no client to hear.
        self.receive = Receiving(incoming.receive if incoming.order is None else None)

    @property
    def ours(self) -> Send:
        """Where an answer of the cache's own goes: what is stored, or will be."""
        return self.outer

    @property
    def tags(self) -> RequestTags:
        """The tags collected while answering."""
        return self.request_tags()

    def request_tags(self) -> RequestTags:
        """The tags collected while answering, made when first asked for."""
        if self._request_tags is None:
            self._request_tags = RequestTags(self.app_context.counters.dropped_tag)
        return self._request_tags

    @property
    def face(self) -> object:
        """The cache of the middleware that the request has passed."""
        return self.app_context.face

    @property
    def changes(self) -> Changes | None:
        """Where the tags go of what an unsafe request commits."""
        return None

    @property
    def route(self) -> str | None:
        """The route's template, once known."""
        return None if self.plan is None else self.plan.path

    def leads(self) -> None:
        """Let the front lookup find by the raw target, where there is one, what is stored under the key."""
        if self.target is not None and self.key is not None:
            self.app_context.engine.store.alias(self.target, self.key)

    def is_answered_here(self) -> None:
        """Let code without the request at hand find it from here on in this context, until `is_answered`."""
        self.answering = Answering(self)

    def is_answered(self) -> None:
        """The request is over for that code; harmless twice."""
        if self.answering is not None:
            self.answering.end()

    def came_again(self, incoming: Incoming) -> Entered:
        """What is known of the same request as it is now; telemetry knows it already."""
        return _as_it_came(incoming, self.entered)

    def overtaken(self) -> bool:
        """Whether something was purged since the request entered."""
        return self.stamp[:3] != self.app_context.engine.replica.mark

    def current(self) -> AbstractContextManager[None]:
        """Make the request's span the parent of what follows, wherever that runs."""
        return nullcontext() if self.seen is None else self.seen.current()

    def on_end(self, scope: Scope, raised: Callable[[BaseException], object], made: Callable[[object], object]) -> None:
        """Have functions told what the route raises or makes, see `fastapi_private.on_end`."""
        on_end(scope, raised, made)

    async def follow(self, handle: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a route have the request, and note how far its response is: a layer may end it as if it were whole."""
        self.passages = (*self.passages, passage := Passage())

        def said(message: Message) -> Awaitable[None]:
            if self.stores:
                passage.take(message := can_be_read_again(message))
            return send(message)

        try:
            await handle(scope, receive, said)
        finally:
            passage.returned = True

    def was_not_followed(self) -> None:
        """It has come to its route by a way that nobody has seen, so that nobody knows how far its response is."""
        self.passages = (Passage.unheard(),)

    def looks_up(self) -> None:
        """The request turns out to be cacheable."""
        self._asked = True
        if self.seen is not None and self.refresh is None:
            self.seen.cacheable()

    def log_trouble(self, message: str, error: BaseException) -> None:
        """Log an error that no client sees: once, until the route is well again."""
        route = self.route
        level = self.app_context.log_once.level((message, route))
        logger.log(level, "%s (%s)", message, route, exc_info=error, extra={"http.route": route})

    def outdate(self, key: bytes, headers: Sequence[tuple[bytes, bytes]], spares: _Spares | None = None) -> None:
        """Let go of what is stored, here and where replicas share it: the app has just said otherwise."""
        for variant in self.app_context.engine.outdated(key, headers, self.stamp, spares):
            if self.runtime.l2 is not None:
                self.runtime.l2.drop(variant)

    def told(
        self, outcome: Outcome, stored: StoredResponse | None = None, *, filled: StoredResponse | None = None
    ) -> None:
        """Count the outcome, and say it of the request's span and to the CDN in front; before the answer begins.

        `stored` is what it is answered with, if so; `filled` what has become of the app's answer.
        """
        if self.refresh is not None:
            self.refresh.told, self.refresh.stored = outcome, stored
            return
        if self.cdn_fields is not None:
            self.cdn_fields.answered(outcome, stored or filled, self.plan)
        self._count(outcome, stored, filled)
        if stored is not None and outcome.result is Result.HIT and self.app_context.cache.shadow.on:
            self._shadowed(stored)

    def _shadowed(self, stored: StoredResponse) -> None:
        """Make the request again, if it is drawn; behind layers what is stored is not what the client gets."""
        if self.arrived["method"] == "GET" and (self.plan is None or not self.plan.layered):
            self.app_context.shadow(self.arrived, self.client_headers, stored)

    def _count(
        self, outcome: Outcome, stored: StoredResponse | None = None, filled: StoredResponse | None = None
    ) -> None:
        if self._told:
            # A layer may have the route answer twice.
            return
        self._told = True
        route = self.route if stored is None or stored.route is None else stored.route
        self.app_context.counters.answered(outcome, route)
        if self.app_context.cache.feed.on:
            tell_decision(
                self.app_context.cache,
                self.arrived,
                outcome,
                began=self.stamp.began,
                route=route,
                stored=stored or filled,
                key=self.key,
                tags=self.declared_tags,
            )
        if self.app_context.observed:
            self.described(outcome, stored, route)
            if route is not None:
                name_route(self.scope, self.contrib, route, routed=self.plan is not None)

    def over(self, error: BaseException | None = None) -> None:
        """The request has ended, by this error if there is one; harmless twice."""
        if error is not None:
            self.unanswered("cancelled" if isinstance(error, CancelledError) else "failed")
        else:
            self.unanswered("incomplete" if self._asked else "refused")
        if self.seen is not None:
            self.seen.left(error)

    def unanswered(self, why: str) -> None:
        """Count a cacheable request of which nothing else has been said: each one is counted once."""
        if not self._told and self.refresh is None and (self._asked or self._is_for_cached_route()):
            self._count(Outcome(Result.MISS if self._asked else Result.BYPASS, detail=why))

    def _is_for_cached_route(self) -> bool:
        """Whether the request came to a route with a policy, although the cache was not asked."""
        return False

    def described(self, outcome: Outcome, stored: StoredResponse | None = None, route: str | None = None) -> None:
        """Say the outcome of the request's span."""
        if self.seen is not None:
            self.seen.answered(outcome, "" if stored is None else stored.trace, route)


def _as_it_came(incoming: Incoming, before: Entered | None = None) -> Entered:
    """What is known of the request now, before any dependency runs; telemetry may know it from `before`."""
    app_context, scope = incoming.app_context, incoming.scope
    arrived = dict(scope)
    if scope.get("state"):
        arrived["state"] = dict(scope["state"])
    headers = [*scope["headers"]]
    engine, tracing = app_context.engine, app_context.cache.tracing
    stamp = engine.replica.stamp(engine.now()) if incoming.ahead is None else incoming.ahead.stamp
    if before is not None:
        return Entered(arrived, headers, stamp, before.seen, before.contrib)
    seen = tracing.enter(headers) if tracing.on else None
    return Entered(arrived, headers, stamp, seen, contrib_outside(scope) if app_context.observed else None)


def can_be_read_again(message: Message) -> Message:
    """The message with its fields in a list, if they can be read only once: ASGI lets them be any iterable."""
    fields = message.get("headers", ())
    return message if isinstance(fields, list | tuple) else {**message, "headers": [*fields]}


def forget_parsed_fields(request: Request) -> None:
    """Have a request read the fields of its scope anew: Starlette keeps what it has parsed of them."""
    request.__dict__.pop("_headers", None)


class _Runs(Protocol):
    """What the app's messages go to, and what is told how the app ends."""

    @property
    def app_context(self) -> AppContext: ...

    @property
    def receive(self) -> Receiving: ...

    def send(self, message: Message) -> Awaitable[None]: ...

    def is_answered(self) -> None: ...

    async def ended(self) -> None: ...

    async def failed(self, error: BaseException) -> bool: ...

    def over(self, error: BaseException | None = None) -> None: ...


async def run_app(exchange: _Runs, scope: Scope, app: ASGIApp | None = None) -> None:
    """Let the app, or a route of it, have a request, and end the exchange as that ends."""
    scope[SCOPE_KEY] = exchange
    try:
        await (exchange.app_context.app if app is None else app)(scope, exchange.receive, exchange.send)
    except BaseException as error:
        if not await exchange.failed(error):
            exchange.over(error)
            raise
    else:
        await exchange.ended()
    finally:
        del scope[SCOPE_KEY]
        exchange.receive.end()
        exchange.is_answered()
        exchange.over()
