"""Safe requests and background refreshes: both may fill, and a safe request may be answered from what was filled."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_cacheinval.core.outcome import Outcome, Reason, Result
from fastapi_cacheinval.dependencies import SCOPE_KEY, Cached, Invalidates
from fastapi_cacheinval.framework.exchange import Exchange, can_be_read_again, run_app
from fastapi_cacheinval.framework.filling import Fill
from fastapi_cacheinval.framework.guards import refused
from fastapi_cacheinval.framework.incoming import Entered, Incoming
from fastapi_cacheinval.framework.layers import Compared, Spoken, answered_behind
from fastapi_cacheinval.framework.lookup import look_up
from fastapi_cacheinval.framework.mutation import Mutation
from fastapi_cacheinval.framework.responding import (
    Annotated,
    Direct,
    PrivateAnswers,
    Responder,
    Stored,
    bypassed,
    nowhere,
    without_conditions,
)
from fastapi_cacheinval.routes.handler_hook import Handler
from fastapi_cacheinval.routes.plan import SAFE_METHODS, RoutePlan, Sharing

__all__ = ["AtRoute", "Read"]

# A guard answers with an error, or with a redirect to a login.
_REFUSED = 300
# What a fill changes in the scope of a request.
_HIDDEN = ("headers", "extensions")
# What says under which root path it came.
_ROOTS = ("root_path", "app_root_path")


class Read(Exchange):
    """A safe request, which may be answered from the cache once its route's `cached()` asks."""

    # Defaults of the class, set on the few that need them: most requests are for routes without a policy.
    _settled: bool = False
    _entered_plan: RoutePlan | None = None
    _fill: Fill | None = None
    _mutation: Mutation | None = None
    # Whether it has come to its route, behind layers.
    _came_to_route: bool = False
    # The plan of a route that puts something around its handler: the cache works behind that.
    _awaited: RoutePlan | None = None
    # Whether the cache works at its route, inside the layers.
    _at_route: bool = False
    # Whether what it sends leaves this cache, for a client if there is one.
    _leaves: bool = True
    # Whether the app does not have it yet, so that nothing has to be unwound for an answer that is stored.
    _ahead: bool = False
    # Whether the app is shown another request than the layers outside ours.
    _hides: bool = False

    def __init__(self, incoming: Incoming, entered: Entered | None = None) -> None:
        super().__init__(incoming, entered)
        # What the request was when it came here.
        self._given: Scope = self.arrived
        if self._leaves and self.refresh is None:
            self.outer = PrivateAnswers(incoming.app_context, incoming.send, self._come_to, self._answering)
        self._responder: Responder = Direct(self.outer)

    def _come_to(self) -> RoutePlan | None:
        """The plan of the route that the request has come to, where that is known."""
        return self._entered_plan or self.plan

    def _answering(self) -> RoutePlan | None:
        """The plan of the route that answers, or would have, had no layer answered before it."""
        table, scope = self.app_context.table, self.scope
        known = table.plan_for(scope, self.arrived)
        if known is not None or "route" in scope:
            return known
        return table.match("GET", self.arrived["path"], self.arrived)

    # A plain method that returns the responder's awaitable: no frame of its own on the way out.
    def send(self, message: Message) -> Awaitable[None]:
        """Take one message of the app's."""
        responder = self._responder
        if message["type"] == "http.response.start" and type(message.get("headers")) is not list:
            message = can_be_read_again(message)
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
            if self.stores or (plan is not None and plan.policy is not None):
                await self.follow(handle, scope, receive, send)
            else:
                await handle(scope, receive, send)
        elif plan.around:
            self._awaited = plan
            await handle(scope, receive, send)
        else:
            await self._behind(plan, handle, scope, receive, send)

    async def answer(self, handler: Handler, request: Request) -> Response:
        """The request has come to the framework's own handler, behind all that the route puts around that."""
        plan, self._awaited = self._awaited, None
        shortcuts = self.app_context.shortcuts
        if shortcuts is not None and plan is None and self.refresh is None and request.scope is self.scope:
            shortcuts.learn(request.scope, self.arrived, handler)
            try:
                return await handler(request)
            finally:
                if type(self._responder) is Stored:
                    shortcuts.learn(request.scope, self.arrived, handler, answered=True)
        if plan is None or self._settled:
            return await handler(request)
        return await answered_behind(partial(self._behind, plan), self._keep_nothing, handler, request)

    def _keep_nothing(self, inner: object) -> None:
        """What the handler has made goes past the cache; it is annotated where it leaves."""
        outcome = inner.keep_nothing() if isinstance(inner, AtRoute) else None
        if outcome is not None:
            self._responder = Annotated(self, outcome)

    async def _behind(self, plan: RoutePlan, handle: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the cache work here, behind layers, and compare what comes out of them with what it says."""
        # What stands at the route says what became of the request.
        self._came_to_route = self._hides = self._told = True
        # Whoever waits for what the headers would have said need not: the policy is asked, with the layers' fields.
        Read._leave_fill(self, scope)
        spoken = Spoken(send)
        if self.refresh is None:
            self._responder = Compared(self, spoken, plan, self.app_context.notices)
        try:
            await run_app(AtRoute(self, scope, receive, spoken), scope, handle)
        finally:
            scope[SCOPE_KEY] = self

    async def _mutate(self, handle: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """A layer has made an unsafe request of it: it purges as one, and its answer is held as one's is."""
        mutation = self._as_mutation(scope)
        if await refused(mutation, send):
            return
        mutation.is_answered_here()
        scope[SCOPE_KEY] = mutation
        try:
            await mutation.enter(handle, scope, receive, send)
        finally:
            scope[SCOPE_KEY] = self
            mutation.is_answered()

    def _as_mutation(self, scope: Scope) -> Mutation:
        """Let a mutation take the app's response from here on."""
        mutation = self._mutation
        if mutation is None:
            # A refresh is none any longer: what is purged is purged.
            incoming = self.incoming._replace(scope=self.scope, receive=self.receive, order=None)
            mutation = self.app_context.mode.mutation(incoming, self)
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
        for name in _ROOTS:
            if scope.get(name) != self.arrived.get(name):
                # Layers have written another root path.
                app_context.note_root(scope, inside=True)
        plan = self._plan_at(scope)
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
            if plan.layers and not self.passages and not self._at_route:
                self.was_not_followed()
            verdict = await look_up(self, request, partition)
            self._responder, self._fill = verdict.responder, verdict.fill
            if verdict.unwind is None:
                self._hides = self.stores = verdict.fill is not None
                self.is_answered_here()
            elif not self._ahead or type(verdict.responder) is not Stored:
                raise verdict.unwound(request)

    def _plan_at(self, scope: Scope) -> RoutePlan | None:
        return self.app_context.table.plan_for(scope, self.arrived)

    def _closed_to(self, plan: RoutePlan) -> str | None:
        """Why this request is not looked up at its route."""
        if self.incoming.closed is not None:
            return self.incoming.closed
        if plan.sharing is Sharing.UNPROVED:
            self.app_context.notices.note_uncached(plan)
            return "caller-dependent"
        # Most routes have nothing around them.
        around = not self._at_route and bool(plan.layers or plan.around)
        # It came another way than through the route's hook, or a second time.
        return "unseen-inside" if around and plan.layered else None

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


class AtRoute(Read):
    """A safe request at its route, behind layers that may answer each caller in their own way.

    What is stored is what the route said; each answer, stored or not, passes through the layers.
    """

    _leaves = False
    _at_route = True

    def __init__(self, around: Read, scope: Scope, receive: Receive, spoken: Spoken) -> None:
        # Its conditions are about what comes out of the layers.
        super().__init__(
            around.incoming._replace(scope=scope, receive=receive, send=spoken),
            around.entered._replace(headers=without_conditions(around.client_headers)),
        )
        self._spoken = spoken
        self._given = {key: scope[key] for key in _HIDDEN if key in scope}

    def keep_nothing(self) -> Outcome | None:
        """Let the response go another way than through here; the outcome, or None where the cache was not asked."""
        if not self._asked:
            return None
        result, reason = (Result.BYPASS, Reason.BYPASS) if self._fill is None else (Result.MISS, Reason.URI_MISS)
        outcome = Outcome(result, reason=reason, detail="route-class")
        self.told(outcome)
        self._leave_fill(self.scope)
        self._responder = Direct(nowhere)
        return outcome

    @property
    def ours(self) -> Send:
        """Where an answer of the cache's own goes: into the layers, which are compared with it at their far end."""
        return self._spoken.ours

    def leads(self) -> None:
        """Only an answer that the layers leave as it is may be given without asking them."""
        self._spoken.when_untouched(super().leads)
