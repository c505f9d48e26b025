"""Safe requests and background refreshes: both may fill, and a safe request may be answered from what was filled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_cacheinval.core.back_off import COULD_NOT_RENEW
from fastapi_cacheinval.core.conditional import CONDITIONAL_FIELDS
from fastapi_cacheinval.core.decide import Serve
from fastapi_cacheinval.core.keys import PartitionTypeError
from fastapi_cacheinval.core.outcome import Outcome
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.dependencies import SCOPE_KEY, Cached, Invalidates
from fastapi_cacheinval.engine.request_tags import Answering
from fastapi_cacheinval.engine.runtime import Runtime
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.comparing import Compared, Spoken
from fastapi_cacheinval.framework.exchange import Exchange, FillSource, RefreshOrder
from fastapi_cacheinval.framework.filling import Fill
from fastapi_cacheinval.framework.lookup import Lookup
from fastapi_cacheinval.framework.mutation import Mutation, refuse, refuses
from fastapi_cacheinval.framework.private_answers import PrivateAnswers
from fastapi_cacheinval.grammar.fields import values
from fastapi_cacheinval.grammar.retry_after import parse_retry_after
from fastapi_cacheinval.ports.store import Target
from fastapi_cacheinval.routes.plan import SAFE_METHODS, RoutePlan, Sharing

__all__ = ["Read", "again", "lead_in_background", "order_refresh", "pass_on"]

_RENEWED = frozenset({"stored", "found"})
_CREDENTIALS = frozenset({b"authorization", b"cookie", b"proxy-authorization"})
# Seconds by which two readings of one stored response's age may differ.
_SAME = 0.005
# What others hang on a request for as long as it lasts; a refresh is a request of its own.
_CALLERS_OWN = frozenset({SCOPE_KEY, "fastapi.telemetry"})
# What a fill changes in the scope of a request.
_HIDDEN = ("headers", "extensions")
_TRACE = frozenset({b"traceparent", b"tracestate"})


class Read(Exchange):
    """A safe request, which may be answered from the cache once its route's `cached()` asks."""

    # Defaults of the class, set on the few that need them: most requests are for routes without a policy.
    settled: bool = False
    fill: Fill | None = None
    inside: AtRoute | None = None
    entered: RoutePlan | None = None
    mutation: Mutation | None = None

    def __init__(
        self,
        app_context: AppContext,
        runtime: Runtime,
        scope: Scope,
        receive: Receive,
        send: Send,
        refresh: RefreshOrder | None = None,
    ) -> None:
        super().__init__(app_context, runtime, scope, receive, send, refresh)
        if self._leaves:
            self.outer = self.sink = PrivateAnswers(app_context, send, self._answering)

    @property
    def _leaves(self) -> bool:
        """Whether what it sends goes to the client."""
        return self.refresh is None

    def _answering(self) -> RoutePlan | None:
        """The plan of the route that answers, or would have, had no layer answered before it."""
        table, scope = self.app_context.table, self.scope
        known = self.entered or self.plan or table.plan_for(scope)
        return (
            known if known is not None or "route" in scope else table.match("GET", self.arrived["path"], self.arrived)
        )

    def declare(self, request: Request, invalidates: Invalidates) -> None:
        """`invalidates()` is inert on a safe method, unless a layer or a router has made an unsafe one of it."""
        if request.scope["method"] not in SAFE_METHODS:
            self._as_mutation(request.scope).declare(request, invalidates)

    async def enter(self, handle: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Where layers that we do not know stand before the route, the cache works behind them."""
        if scope["method"] not in SAFE_METHODS:
            await self._mutate(handle, scope, receive, send)
            return
        if self.cdn_fields is not None:
            # Layers may have made one of their own.
            self.cdn_fields.scope = scope
        fresh = scope["method"] == "GET" and not self.settled and self.inside is None
        plan = self.app_context.table.plan_for(scope) if fresh else None
        self.entered = plan or self.entered
        if plan is None or not plan.layered:
            await handle(scope, receive, send)
            return
        self.inside = AtRoute(self, scope, receive, send)
        self.tended = True
        if self.refresh is None:
            self.sink = Compared(self, self.inside.spoken, lambda: self.app_context.note_changed(plan))
        try:
            await pass_on(self.inside, scope, handle)
        finally:
            scope[SCOPE_KEY] = self

    async def _mutate(self, handle: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """A layer has made an unsafe request of it: it purges as one, and its answer is held as one's is."""
        mutation = self._as_mutation(scope)
        if refuses(mutation):
            await refuse(mutation, send)
            return
        answering = Answering(mutation)
        scope[SCOPE_KEY] = mutation
        try:
            await mutation.enter(handle, scope, receive, send)
        finally:
            scope[SCOPE_KEY] = self
            answering.end()

    def _as_mutation(self, scope: Scope) -> Mutation:
        """Let a mutation take the app's messages from here on, in this exchange's place."""
        mutation = self.mutation
        if mutation is None:
            makes = self.app_context.mutates or Mutation
            mutation = makes(self.app_context, self.runtime, self.scope, self.source, self._sent_by)
            mutation.take_over(self)
            self._leave_fill(scope)
            self.mutation, self.sink, self.tended = mutation, mutation.sink, True
        return mutation

    def _leave_fill(self, scope: Scope) -> None:
        """Nothing of the response may be kept."""

    async def look_up(self, request: Request, cached: Cached, partition: tuple[Any, ...]) -> None:
        """The route lookup; it raises to unwind the request where the answer is known."""
        scope = request.scope
        if self.settled or scope["method"] != "GET":
            return
        app_context = self.app_context
        # Layers may have written another root path.
        app_context.note_root(scope)
        plan = app_context.table.plan_for(scope)
        if plan is None:
            self.bypass("unknown-route")
        elif plan.cached is cached and plan.policy is not None:
            self.settled = True
            self.plan = plan
            if not app_context.cache.enabled:
                self.bypass("disabled")
            elif plan.sharing is Sharing.UNPROVED:
                app_context.warn_once(plan)
                self.bypass("caller-dependent")
            elif plan.layered and not isinstance(self, AtRoute):
                # It came another way than through the route's tap, or a second time.
                self.bypass("unseen-inside")
            else:
                self.looks_up()
                try:
                    lookup = Lookup(self, request, plan, plan.policy, partition)
                except PartitionTypeError as error:
                    app_context.note_partition(plan, partition, error)
                    self.bypass("partition")
                    return
                await lookup.run()
                self.fill = lookup.fill
                self.tended = self.fill is not None
                # For code without the request at hand, from here on in this context.
                self.answering = Answering(self)

    def order_refresh(self, stored: StoredResponse) -> None:
        order_refresh(self.app_context, self.runtime, self.arrived, self.client_headers, stored, self.trace)

    def order_forward(self, key: bytes) -> bool:
        scope = again(self.arrived, self.client_headers, CONDITIONAL_FIELDS)
        return _order(self.app_context, self.runtime, key, scope, cause=self.trace)

    async def done(self) -> None:
        self._restore()
        if self.mutation is not None:
            await self.mutation.done()
        if self.fill is not None:
            await self.fill.ended()
        if isinstance(self.sink, Compared):
            await self.sink.ended()

    def _restore(self) -> None:
        """Give layers outside ours back what the fill was not to see."""
        given = self._given()
        for key in _HIDDEN:
            if key in given:
                self.scope[key] = given[key]

    def _given(self) -> Scope:
        return self.arrived

    async def failed(self, error: BaseException) -> bool:
        self._restore()
        if self.mutation is not None:
            return await self.mutation.failed(error)
        return self.fill is not None and await self.fill.failed(error)


class AtRoute(Read):
    """A safe request at its route, behind layers that may answer each caller in their own way.

    What is stored is what the route said; each answer, stored or not, passes through the layers.
    """

    def __init__(self, around: Read, scope: Scope, receive: Receive, send: Send) -> None:
        self.spoken = Spoken(send)
        super().__init__(around.app_context, around.runtime, scope, receive, self.spoken, around.refresh)
        self._entered: Scope = {key: scope[key] for key in _HIDDEN if key in scope}
        # What it knew when it came, and how it is made again, all layers included.
        self.mark, self.began, self.arrived = around.mark, around.began, around.arrived
        self.seen, self._around = around.seen, around
        self.cdn_fields = around.cdn_fields
        # Its conditions are about what comes out of the layers.
        self.client_headers = [pair for pair in around.client_headers if pair[0] not in CONDITIONAL_FIELDS]

    async def look_up(self, request: Request, cached: Cached, partition: tuple[Any, ...]) -> None:
        """The route lookup, by what the layers have made of the request."""
        await super().look_up(request, cached, partition)
        if self.fill is not None:
            self._speak_at_once()

    def answer(self, stored: StoredResponse, outcome: Outcome) -> None:
        """Send a stored response into the layers."""
        self._speak_at_once()
        super().answer(stored, outcome)

    def annotate(self, outcome: Outcome) -> None:
        """Let the route's answer through with how it came, as soon as it comes."""
        self.spoken.at_once = False
        super().annotate(outcome)

    def leading(self, target: Target | None, key: bytes) -> Target | None:
        """Only an answer that the layers leave as it is may be given without asking them."""
        if target is not None:
            self.spoken.untouched = lambda: self.app_context.engine.remember_target(target, key)
        return None

    @property
    def _leaves(self) -> bool:
        return False

    @property
    def server(self) -> Send:
        """What the server gave: layers have a `send` of their own."""
        return self._around.server

    def _speak_at_once(self) -> None:
        self.spoken.at_once = True
        self.spoken.policy = None if self.plan is None else self.plan.policy

    def _given(self) -> Scope:
        return self._entered


async def pass_on(exchange: Exchange, scope: Scope, app: ASGIApp | None = None) -> None:
    """Let the app, or a route of it, have a request, and end the exchange as that ends."""
    scope[SCOPE_KEY] = exchange
    try:
        await (exchange.app_context.app if app is None else app)(scope, exchange.receive, exchange.send)
    except BaseException as error:
        answered = await exchange.answered_anyway(error)
        if not answered and (not exchange.tended or not await exchange.failed(error)):
            raise
    else:
        if exchange.tended:
            await exchange.done()
    finally:
        del scope[SCOPE_KEY]
        if exchange.answering is not None:
            exchange.answering.end()
        if exchange.seen is not None:
            exchange.seen.left()


def again(arrived: Scope, headers: list[tuple[bytes, bytes]], dropped: frozenset[bytes]) -> Scope:
    """The request again, as a plain GET of its own."""
    scope: dict[str, Any] = {
        key: dict(cast("dict[str, Any]", value)) if isinstance(value, dict) else value
        for key, value in arrived.items()
        if key not in _CALLERS_OWN
    }
    scope["method"] = "GET"
    # Its spans are its own trace's.
    scope["headers"] = [pair for pair in headers if pair[0] not in dropped and pair[0] not in _TRACE]
    scope["extensions"] = {}
    return scope


def order_refresh(
    app_context: AppContext,
    runtime: Runtime,
    arrived: Scope,
    headers: list[tuple[bytes, bytes]],
    stored: StoredResponse,
    cause: str,
) -> None:
    """Have a stored response refreshed in the background, if nobody is at it and there is room.

    A response that is proved shared is fetched as nobody; one that is not needs who caused it, or it
    would be refused for ever. `cause` is the `traceparent` of the request that asks for it.
    """
    dropped = CONDITIONAL_FIELDS
    if stored.front:
        dropped = dropped | (_CREDENTIALS - {name for name, _ in stored.vary})
    _order(app_context, runtime, stored.key, again(arrived, headers, dropped), newer_than=stored, cause=cause)


def _order(
    app_context: AppContext,
    runtime: Runtime,
    key: bytes,
    scope: Scope,
    *,
    newer_than: StoredResponse | None = None,
    cause: str = "",
) -> bool:
    """Begin a background forward that leads a key's flight; False where one is under way or there is no room."""

    async def forward(order: RefreshOrder) -> None:
        exchange = Read(app_context, runtime, scope, FillSource(), order.hear, order)
        try:
            await pass_on(exchange, scope)
        finally:
            if exchange.fill is None and (exchange.inside is None or exchange.inside.fill is None):
                # It never came as far as its own cached(): whoever waits must not wait for it.
                order.flight.fail()

    return lead_in_background(app_context, runtime, key, forward, newer_than=newer_than, cause=cause)


def lead_in_background(
    app_context: AppContext,
    runtime: Runtime,
    key: bytes,
    forward: Callable[[RefreshOrder], Awaitable[None]],
    *,
    newer_than: StoredResponse | None = None,
    cause: str = "",
) -> bool:
    """Begin a background forward that leads a key's flight; False where one is under way or there is no room.

    Where replicas share a tier, what another one has refreshed since is taken in place of a forward. `cause` is the
    `traceparent` of the request that asks for it; where that is not recorded, neither is this.
    """
    flight = runtime.flights.lead(key) if runtime.may_refresh(key, newer_than) else None
    if flight is None:
        return False
    order = RefreshOrder(flight)
    begun = False

    async def refresh() -> str:
        nonlocal begun
        begun = True
        tracing = app_context.cache.tracing
        with tracing.span("cacheinval.refresh", link=cause) as span:
            if not await _found_in_l2(app_context, runtime, order, newer_than):
                await forward(order)
            span.note("cacheinval.outcome", order.outcome)
        return order.outcome

    def ended(outcome: str) -> None:
        if not begun:
            flight.fail()
        app_context.counters.refreshed(outcome)
        if newer_than is not None and outcome in COULD_NOT_RENEW:
            wall = app_context.cache.clock.wall()
            runtime.back_off(key, newer_than, parse_retry_after(values(order.answered, b"retry-after"), wall))
        elif outcome in _RENEWED:
            runtime.renewed(key)

    runtime.refresh(key, refresh, ended)
    return True


async def _found_in_l2(
    app_context: AppContext, runtime: Runtime, order: RefreshOrder, newer_than: StoredResponse | None
) -> bool:
    """Whether a background forward is not needed: another replica was quicker, or no answer can be shared."""
    l2, flight, engine = runtime.l2, order.flight, app_context.engine
    if l2 is None or not l2.open:
        return False

    def wanted(stored: StoredResponse) -> bool:
        newer = newer_than is None or stored.created > newer_than.created + _SAME
        return newer and isinstance(engine.decide(stored, engine.now()), Serve)

    deadline = engine.now() + engine.settings.refresh_timeout
    led = await l2.lead_flight(flight, flight.key, (), deadline, wanted)
    if led.stored is None and not led.refused:
        return False
    order.outcome = "refused" if led.stored is None else "found"
    return True
