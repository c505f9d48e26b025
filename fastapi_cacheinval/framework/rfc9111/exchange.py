"""One GET, HEAD or background refresh under `honour_headers`, on its way to the app and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.routing import BaseRoute, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_cacheinval.core.rfc9111.storing import Answerer
from fastapi_cacheinval.dependencies import Cached
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.exchange import forget_parsed_fields, run_app
from fastapi_cacheinval.framework.filling import Fill
from fastapi_cacheinval.framework.reading import Read
from fastapi_cacheinval.framework.responding import Direct, Responder, bypassed, hide_what_bypasses
from fastapi_cacheinval.grammar.fields import RawField
from fastapi_cacheinval.grammar.targeted import CAPABILITY
from fastapi_cacheinval.routes.fastapi_private import template_in
from fastapi_cacheinval.routes.frontends import is_guarded_frontend
from fastapi_cacheinval.routes.route_levels import Files, Leaf

__all__ = ["HeaderRead", "foreseen", "has_policy"]

_CAPABILITY = (b"surrogate-capability", CAPABILITY + b'="Surrogate/1.0"')


def has_policy(app_context: AppContext, scope: Any) -> bool:
    """Whether the route that would answer has a `cached()` of its own, which is asked then instead of its headers."""
    plan = app_context.table.match("GET", scope["path"], scope)
    return plan is not None and plan.decides


def _answers_alone(app: object) -> bool:
    """Whether an app is one of Starlette's routes or endpoints, without a router."""
    return isinstance(app, BaseRoute) or (isinstance(app, type) and issubclass(app, HTTPEndpoint))


def _is_seen(app_context: AppContext, scope: Mapping[str, Any]) -> bool:
    """Whether anything of the app's routes can be seen: in the app, or by what routers have written into the scope."""
    seen = app_context.table.survey.apps or isinstance(scope.get("router"), Router)
    return bool(seen) or _answers_alone(app_context.app)


def foreseen(app_context: AppContext, arrived: Mapping[str, Any], *, elsewhere: bool) -> Answerer:
    """What would answer GET for a request as it arrived.

    `elsewhere` says that it is asked for what another process has stored: its release need not be this one. Where no
    route is known to answer, such as behind a layer or in an app of another kind, this one may ask who is calling.
    """
    table = app_context.table
    # A HEAD is answered by what is stored for GET.
    found = table.led(arrived if arrived["method"] == "GET" else {**arrived, "method": "GET"})
    if isinstance(found, Files):
        return Answerer.FILES if found.are(found.app) else Answerer.CODE
    if isinstance(found, Leaf) and not found.refuses("GET"):
        known = found.known
        # What has been changed since is looked at when it answers.
        asks_who = known is not None and (known.changed or table.current(known).asks_who)
    elif _is_seen(app_context, arrived):
        asks_who = elsewhere
    else:
        return Answerer.UNSEEN
    return Answerer.ASKING if asks_who else Answerer.CODE


class HeaderRead(Read):
    """A forward whose response is judged by its own headers."""

    # The template of what answers, once it is known, and whether that is seen to ask who is calling.
    _answered_by: tuple[str | None, bool] = (None, False)
    # Whether plain files are answering: what an exception handler says of a file that is not there comes after them.
    _by_files: bool = False

    @property
    def route(self) -> str | None:
        """The template of the route that has answered, of any framework that leaves it in the scope."""
        return super().route if self.plan is not None else self._found()[0]

    def answerer(self) -> Answerer:
        """What answers, asked while it does."""
        if self._by_files:
            return Answerer.FILES
        if self._found()[1]:
            return Answerer.ASKING
        return Answerer.CODE if _is_seen(self.app_context, self.scope) else Answerer.UNSEEN

    def _found(self) -> tuple[str | None, bool]:
        if self._answered_by[0] is None:
            plan = self.app_context.table.plan_for(self.scope, self.arrived)
            if plan is not None and plan.layers and not self.passages:
                self.was_not_followed()
            self._answered_by = (
                (template_in(self.scope), is_guarded_frontend(self.scope))
                if plan is None
                else (plan.path, plan.asks_who)
            )
        return self._answered_by

    async def enter(self, handle: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """The request has come to its route, or to files."""
        self._by_files = self.app_context.table.by_plain_files(scope.get("endpoint"), self.arrived)
        try:
            await super().enter(handle, scope, receive, send)
        finally:
            self._by_files = False

    def _leave_fill(self, scope: Scope) -> None:
        if self._fill is not None:
            self._responder = Direct(self.outer)
            scope["headers"] = [*self.client_headers]
        super()._leave_fill(scope)

    async def look_up(self, request: Request, cached: Cached, partition: tuple[Any, ...]) -> None:
        """A route that was not known to have a policy has one: its response is none of the headers' business."""
        if self._fill is not None:
            self._leave_fill(request.scope)
            forget_parsed_fields(request)
        await super().look_up(request, cached, partition)

    def over(self, error: BaseException | None = None) -> None:
        """Wait for the end of the lookup: the client's request may go on as another exchange."""

    def lookup_over(self, error: BaseException | None = None) -> None:
        """The client's request has ended, by this error if there is one; harmless twice."""
        super().over(error)

    async def forward(self, fill: Fill, fields: list[RawField]) -> None:
        """Let the app answer a request with these fields, and see its response as a fill."""
        # Made before any thread of the app can: two that made one each would lose the tags of one.
        self.request_tags()
        self._fill = self._responder = fill
        self.stores = True
        self._normalise(fields)
        await run_app(self, self.scope)

    async def forward_head(self, update: Responder, fields: list[RawField]) -> None:
        """Let the app answer a HEAD with these fields."""
        self._responder = update
        self._normalise(fields)
        await run_app(self, self.scope)

    async def forward_plainly(self, detail: str) -> None:
        """Let the app answer the request as it came, and keep nothing."""
        self._responder = bypassed(self, detail)
        await run_app(self, self.scope)

    def _normalise(self, fields: list[RawField]) -> None:
        """Let the app see these fields of the request, and nothing that would bypass `send`."""
        self._hides = True
        scope = self.scope
        scope["headers"] = [*fields, _CAPABILITY]
        hide_what_bypasses(scope)
