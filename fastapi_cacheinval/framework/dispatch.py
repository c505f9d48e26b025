"""The one way of a request that the front lookup has not answered: every guard first, and then the mode.

A mode says what becomes of a request that may be answered from the cache, and of one that may change something. No mode
is asked before all guards were: what a guard refuses, no mode can let through.
"""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from fastapi_cacheinval.core.rfc9111.options import HeaderOptions
from fastapi_cacheinval.dependencies import SCOPE_KEY
from fastapi_cacheinval.engine.request_tags import Answering
from fastapi_cacheinval.engine.runtime import Runtime
from fastapi_cacheinval.errors import CacheinvalError
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.cdn_fields import CDNFields, cdn_fields_of
from fastapi_cacheinval.framework.exchange import run_app
from fastapi_cacheinval.framework.guards import GUARDS
from fastapi_cacheinval.framework.incoming import Incoming
from fastapi_cacheinval.framework.mutation import Mutation
from fastapi_cacheinval.framework.reading import Read
from fastapi_cacheinval.framework.rfc9111.lookup import HeaderLookup
from fastapi_cacheinval.framework.rfc9111.mutation import HeaderMutation
from fastapi_cacheinval.framework.rfc9111.resource import SearchRules
from fastapi_cacheinval.routes.plan import SAFE_METHODS

__all__ = ["MODES", "ByHeaders", "ByPolicy", "Dispatcher", "Mode"]

_LOOKED_UP = frozenset({"GET", "HEAD"})


class Mode(Protocol):
    """What becomes of a request that every guard has let through."""

    async def read(self, incoming: Incoming) -> None:
        """Take a GET or HEAD."""
        ...

    def mutation(self, runtime: Runtime, scope: Scope, receive: Receive, send: Send) -> Mutation:
        """Make what becomes of an unsafe request."""
        ...


class ByPolicy:
    """Routes with `cached()` are looked up once they ask; all others are passed on."""

    def __init__(self, app_context: AppContext) -> None:
        self._app_context = app_context

    async def read(self, incoming: Incoming) -> None:
        """Take a GET or HEAD."""
        exchange = Read(
            self._app_context,
            incoming.runtime,
            incoming.scope,
            incoming.receive,
            incoming.send,
            cdn_fields=incoming.cdn_fields,
            closed=incoming.closed,
        )
        await run_app(exchange, incoming.scope)

    def mutation(self, runtime: Runtime, scope: Scope, receive: Receive, send: Send) -> Mutation:
        """Make what becomes of an unsafe request."""
        return Mutation(self._app_context, runtime, scope, receive, send)


class ByHeaders:
    """Responses are stored by what their headers say (RFC 9111); a route with `cached()` keeps its policy."""

    def __init__(self, app_context: AppContext, options: HeaderOptions) -> None:
        self._app_context = app_context
        self._options = options
        self._rules = SearchRules()
        self._by_policy = ByPolicy(app_context)

    async def read(self, incoming: Incoming) -> None:
        """Take a GET or HEAD."""
        lookup = HeaderLookup(self._app_context, incoming, self._options, self._rules)
        answering = Answering(lookup.exchange)
        try:
            if await lookup.run():
                return
        finally:
            answering.end()
        await self._by_policy.read(incoming)

    def mutation(self, runtime: Runtime, scope: Scope, receive: Receive, send: Send) -> Mutation:
        """Make what becomes of an unsafe request."""
        return HeaderMutation(self._app_context, runtime, scope, receive, send, self._options, self._rules)


# -- the dispatcher -----------------------------------------------------------------------------


MODES: tuple[type[ByPolicy | ByHeaders], ...] = (ByPolicy, ByHeaders)
"""Every mode."""


class Dispatcher:
    """Takes what the front lookup has not answered. `prepare` looks at the app, and gives what is wrong with it."""

    def __init__(
        self,
        app_context: AppContext,
        options: HeaderOptions | None,
        prepare: Callable[[Scope], CacheinvalError | None],
    ) -> None:
        self._app_context = app_context
        self._prepare = prepare
        self._runtimes = app_context.cache.runtimes
        self._mode: Mode = ByPolicy(app_context) if options is None else ByHeaders(app_context, options)
        app_context.let_mutate(self._mode.mutation)
        # A GET for a path that no cached route can have goes past no guard that could stop it.
        self._knows_uncached = options is None and not app_context.engine.settings.read_your_writes

    # A plain method that returns what is awaited: no frame of its own around requests without a policy.
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Take one request."""
        app_context = self._app_context
        if app_context.downstream is not None:
            send = cdn_fields_of(app_context, scope, send) or send
        runtime = self._runtimes.get(get_running_loop())
        if runtime is None or not runtime.serving or not app_context.ready:
            return self._first(scope, receive, send)
        if self._is_uncached(scope):
            return self._pass(scope, receive, send)
        return self._guarded(scope, receive, send, runtime)

    def _is_uncached(self, scope: Scope) -> bool:
        """Whether this is a GET for a path that no cached route can have: no guard could stop it."""
        return (
            self._knows_uncached
            and scope["method"] == "GET"
            and not scope.get("root_path")
            and self._app_context.table.passes(scope["path"])
        )

    async def _first(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start on this loop and look at the app; where the app is at fault, say what is wrong with it."""
        runtime = await self._app_context.cache.started()
        error = self._prepare(scope)
        if error is not None:
            await PlainTextResponse(str(error), status_code=500)(scope, receive, send)
        elif self._is_uncached(scope):
            await self._pass(scope, receive, send)
        else:
            await self._guarded(scope, receive, send, runtime)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[SCOPE_KEY] = self._app_context.uncached
        try:
            await self._app_context.app(scope, receive, send)
        finally:
            del scope[SCOPE_KEY]

    async def _guarded(self, scope: Scope, receive: Receive, send: Send, runtime: Runtime) -> None:
        app_context = self._app_context
        cdn_fields = send if isinstance(send, CDNFields) else None
        mutation = None if scope["method"] in SAFE_METHODS else self._mode.mutation(runtime, scope, receive, send)
        incoming = Incoming(scope, receive, send, runtime, cdn_fields, mutation=mutation)
        for guard in GUARDS:
            passed = await guard(app_context, incoming)
            if passed is None:
                return
            incoming = passed
        try:
            await self._let_through(incoming)
        finally:
            # Layers outside read from their own scope what route was taken.
            for key in incoming.scope.keys() - scope.keys():
                scope[key] = incoming.scope[key]

    async def _let_through(self, incoming: Incoming) -> None:
        if incoming.mutation is not None:
            answering = Answering(incoming.mutation)
            try:
                await run_app(incoming.mutation, incoming.scope)
            finally:
                answering.end()
        elif incoming.scope["method"] in _LOOKED_UP:
            await self._mode.read(incoming)
        else:
            # Safe, and nothing is stored for it.
            scope, receive, send = incoming.scope, incoming.receive, incoming.send
            await run_app(Read(self._app_context, incoming.runtime, scope, receive, send), scope)
