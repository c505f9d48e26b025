"""Safe requests and background refreshes: both may fill, and a safe request may be answered from what was filled."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_cacheinval.core.back_off import NOBODY
from fastapi_cacheinval.core.conditional import CONDITIONAL_FIELDS
from fastapi_cacheinval.core.keys import PartitionTypeError
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.dependencies import SCOPE_KEY, Cached, Invalidates
from fastapi_cacheinval.engine.request_tags import Answering
from fastapi_cacheinval.engine.runtime import Runtime
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.cdn_fields import CDNFields
from fastapi_cacheinval.framework.comparing import Compared, Spoken
from fastapi_cacheinval.framework.exchange import Exchange, run_app
from fastapi_cacheinval.framework.filling import Fill
from fastapi_cacheinval.framework.lookup import Lookup
from fastapi_cacheinval.framework.mutation import Mutation, refuse, refuses
from fastapi_cacheinval.framework.private_answers import PrivateAnswers
from fastapi_cacheinval.framework.receiving import nobody
from fastapi_cacheinval.framework.refresh import RefreshOrder, again, caller_of, lead_in_background
from fastapi_cacheinval.framework.responding import Direct, Responder, bypassed
from fastapi_cacheinval.framework.short_circuit import short_circuit
from fastapi_cacheinval.ports.store import Target
from fastapi_cacheinval.routes.plan import SAFE_METHODS, RoutePlan, Sharing

__all__ = ["AtRoute", "Read", "order_refresh"]

_CREDENTIALS = frozenset({b"authorization", b"cookie", b"proxy-authorization"})
# A guard answers with an error, or with a redirect to a login.
_REFUSED = 300
# What a fill changes in the scope of a request.
_HIDDEN = ("headers", "extensions")


class Read(Exchange):
    """A safe request, which may be answered from the cache once its route's `cached()` asks."""

    # Defaults of the class, set on the few that need them: most requests are for routes without a policy.
    _settled: bool = False
    _entered_plan: RoutePlan | None = None
    _fill: Fill | None = None
    _mutation: Mutation | None = None
    # Whether it has come to its route, behind layers.
    _came_to_route: bool = False
    # Whether the app is shown another request than the layers outside ours.
    _hides: bool = False

    def __init__(
        self,
        app_context: AppContext,
        runtime: Runtime,
        scope: Scope,
        receive: Receive,
        send: Send,
        refresh: RefreshOrder | None = None,
        *,
        cdn_fields: CDNFields | None = None,
        closed: str | None = None,
    ) -> None:
        super().__init__(app_context, runtime, scope, receive, send, refresh, cdn_fields=cdn_fields)
        # Why nothing may be answered from the cache, whatever is stored.
        self.closed = closed
        if self._leaves:
            self.outer = PrivateAnswers(app_context, send, self._answering)
        self._responder: Responder = Direct(self.outer)

    @property
    def _leaves(self) -> bool:
        """Whether what it sends goes to the client."""
        return self.refresh is None

    def _answering(self) -> RoutePlan | None:
        """The plan of the route that answers, or would have, had no layer answered before it."""
        table, scope = self.app_context.table, self.scope
        known = self._entered_plan or self.plan or table.plan_for(scope, self.arrived)
        if known is not None or "route" in scope:
            return known
        return table.match("GET", self.arrived["path"], self.arrived)

    # A plain method that returns the responder's awaitable: no frame of its own on the way out.
    def send(self, message: Message) -> Awaitable[None]:
        """Take one message of the app's."""
        responder = self._responder
        if type(responder) is Direct and not self._asked and message.get("status", 0) >= _REFUSED:
            # The server's span may end with the response.
            self.unanswered("refused")
        return responder(message)

    def _is_for_cached_route(self) -> bool:
        if self._mutation is not None or self.scope["method"] != "GET":
            return False
        plan = self._entered_plan or self.app_context.table.plan_for(self.scope, self.arrived)
        if plan is None or plan.policy is None:
            return False
        self.plan = plan
        return True

    def declare(self, request: Request, invalidates: Invalidates) -> None:
        """`invalidates()` is inert on a safe method, unless a layer or a router has made an unsafe one of it."""
        if request.scope["method"] not in SAFE_METHODS:
            self._as_mutation(request.scope).declare(request, invalidates)

    async def enter(self, handle: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """The request has come to its route. Behind layers that we do not know, the cache works here."""
        if scope["method"] not in SAFE_METHODS:
            await self._mutate(handle, scope, receive, send)
            return
        if self.cdn_fields is not None:
            # Layers may have made one of their own.
            self.cdn_fields.follow(scope)
        fresh = scope["method"] == "GET" and not self._settled and not self._came_to_route
        plan = self.app_context.table.plan_for(scope, self.arrived) if fresh else None
        self._entered_plan = plan or self._entered_plan
        if plan is None or not plan.layered:
            await handle(scope, receive, send)
            return
        # What stands at the route says what became of the request.
        self._came_to_route = self._hides = self._told = True
        # Whoever waits for what the headers would have said need not: the policy is asked, with the layers' fields.
        Read._leave_fill(self, scope)
        spoken = Spoken(send, plan.policy)
        if self.refresh is None:
            self._responder = Compared(self, spoken, lambda: self.app_context.note_changed(plan))
        try:
            await run_app(AtRoute(self, scope, receive, spoken), scope, handle)
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
        """Let a mutation take the app's response from here on."""
        mutation = self._mutation
        if mutation is None:
            mutation = self.app_context.mutation(self.runtime, self.scope, self.receive, self._sent_by)
            mutation.take_over(self)
            self._leave_fill(scope)
            self._mutation = self._responder = mutation
        return mutation

    def _leave_fill(self, scope: Scope) -> None:
        """Keep nothing of the response: it has another owner."""
        fill, self._fill = self._fill, None
        if fill is not None:
            fill.abandon()

    async def look_up(self, request: Request, cached: Cached, partition: tuple[Any, ...]) -> None:
        """The route lookup; it raises to unwind the request where the answer is known."""
        scope = request.scope
        if self._settled or scope["method"] != "GET":
            return
        app_context = self.app_context
        # Layers may have written another root path.
        app_context.note_root(scope)
        plan = app_context.table.plan_for(scope, self.arrived)
        if plan is None:
            self._responder = bypassed(self, "unknown-route")
        elif plan.cached is cached and plan.policy is not None:
            self._settled = True
            self.plan = plan
            detail = self._closed_to(plan)
            if detail is not None:
                self._responder = bypassed(self, detail)
                return
            self.looks_up()
            try:
                lookup = Lookup(self, self, request, plan, plan.policy, partition)
            except PartitionTypeError as error:
                app_context.note_partition(plan, partition, error)
                self._responder = bypassed(self, "partition")
                return
            verdict = await lookup.run()
            self._responder = verdict.responder
            if verdict.unwind is not None:
                raise short_circuit(request, verdict.unwind)
            self._fill = verdict.fill
            self._hides = verdict.fill is not None
            # For code without the request at hand, from here on in this context.
            self.answering = Answering(self)

    def _closed_to(self, plan: RoutePlan) -> str | None:
        """Why this request is not looked up at its route."""
        if self.closed is not None:
            return self.closed
        if plan.sharing is Sharing.UNPROVED:
            self.app_context.warn_once(plan)
            return "caller-dependent"
        # It came another way than through the route's tap, or a second time.
        return "unseen-inside" if plan.layered and not self._at_route else None

    @property
    def _at_route(self) -> bool:
        return False

    def order_refresh(self, stored: StoredResponse) -> None:
        """Have a stored response refreshed in the background, if nobody is at it."""
        order_refresh(self.app_context, self.runtime, self.arrived, self.client_headers, stored, self.trace)

    def order_forward(self, key: bytes) -> bool:
        """Have this request forwarded once more in the background, as the leader of the key; whether it is."""
        scope = again(self.arrived, self.client_headers, CONDITIONAL_FIELDS)
        return _order(self.app_context, self.runtime, key, scope, cause=self.trace)

    async def ended(self) -> None:
        """The app has returned."""
        self._restore()
        await self._responder.ended()

    async def failed(self, error: BaseException) -> bool:
        """The app has raised; True where the client has its answer all the same."""
        self._restore()
        return await self._responder.failed(error)

    def _restore(self) -> None:
        """Give layers outside ours back what the fill was not to see."""
        if self._hides:
            given = self._given
            for key in _HIDDEN:
                if key in given:
                    self.scope[key] = given[key]

    @property
    def _given(self) -> Scope:
        """What the request was when it came here."""
        return self.arrived


class AtRoute(Read):
    """A safe request at its route, behind layers that may answer each caller in their own way.

    What is stored is what the route said; each answer, stored or not, passes through the layers.
    """

    def __init__(self, around: Read, scope: Scope, receive: Receive, spoken: Spoken) -> None:
        super().__init__(
            around.app_context,
            around.runtime,
            scope,
            receive,
            spoken,
            around.refresh,
            cdn_fields=around.cdn_fields,
            closed=around.closed,
        )
        self._spoken = spoken
        self._entered: Scope = {key: scope[key] for key in _HIDDEN if key in scope}
        # What it knew when it came, and how it is made again, all layers included.
        self.mark, self.began, self.arrived = around.mark, around.began, around.arrived
        self.seen, self.contrib = around.seen, around.contrib
        # Its conditions are about what comes out of the layers.
        self.client_headers = [pair for pair in around.client_headers if pair[0] not in CONDITIONAL_FIELDS]

    @property
    def ours(self) -> Send:
        """Where an answer of the cache's own goes: into the layers, which are compared with it at their far end."""
        return self._spoken.ours

    def leading(self, target: Target | None, key: bytes) -> Target | None:
        """Only an answer that the layers leave as it is may be given without asking them."""
        if target is not None:
            self._spoken.when_untouched(lambda: self.app_context.engine.remember_target(target, key))
        return None

    @property
    def _at_route(self) -> bool:
        return True

    @property
    def _leaves(self) -> bool:
        return False

    @property
    def _given(self) -> Scope:
        return self._entered


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
        closed = None if app_context.cache.enabled else "disabled"
        await run_app(Read(app_context, runtime, scope, nobody, order.hear, order, closed=closed), scope)

    # What is proved to be the same for all is fetched as nobody.
    caller = NOBODY if newer_than is not None and newer_than.front else caller_of(scope)
    return lead_in_background(app_context, runtime, key, forward, newer_than=newer_than, cause=cause, caller=caller)
