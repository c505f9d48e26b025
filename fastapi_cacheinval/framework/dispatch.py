"""The one way of a request that the front lookup has not answered: every guard first, and then the mode.

No mode is asked before all guards were: what a guard refuses, no mode can let through.
"""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from fastapi_cacheinval.dependencies import SCOPE_KEY
from fastapi_cacheinval.engine.runtime import Runtime
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.cdn_fields import CDNFields, cdn_fields_of
from fastapi_cacheinval.framework.exchange import run_app
from fastapi_cacheinval.framework.guards import GUARDS
from fastapi_cacheinval.framework.incoming import Ahead, Incoming
from fastapi_cacheinval.framework.route_hits import RouteHits
from fastapi_cacheinval.framework.uncached import Uncached
from fastapi_cacheinval.routes.plan import LOOKED_UP, SAFE_METHODS
from fastapi_cacheinval.routes.shortcuts import Shortcut

__all__ = ["Dispatcher"]

_MOST_PATHS = 1024
_LONGEST_PATH = 256


class Dispatcher:
    """Takes what the front lookup has not answered. `prepare` looks at the app, and gives what is wrong with it."""

    def __init__(self, app_context: AppContext, prepare: Callable[[Scope], Exception | None]) -> None:
        self._app_context = app_context
        self._prepare = prepare
        self._runtimes = app_context.cache.runtimes
        self._route_hits = RouteHits(app_context)
        # Paths that no cached route had when they were last asked for.
        self.passing: set[str] = set()
        self._knows_uncached = not (app_context.mode.by_headers or app_context.engine.settings.read_your_writes)

    # A plain method that returns what is awaited: no frame of its own around requests without a policy.
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Take one request."""
        app_context = self._app_context
        if app_context.downstream is not None:
            send = cdn_fields_of(app_context, scope, send) or send
        runtime = self._runtimes.get(get_running_loop())
        if runtime is None or not runtime.serving or app_context.uncached is None:
            return self._first(scope, receive, send)
        return self._take(scope, receive, send, runtime, app_context.uncached)

    def _take(
        self, scope: Scope, receive: Receive, send: Send, runtime: Runtime, uncached: Uncached
    ) -> Awaitable[None]:
        """Take one request for an app that has been looked at."""
        if self._knows_uncached and scope["method"] == "GET":
            # A GET for a path that no cached route can have goes past no guard that could stop it.
            if not scope.get("root_path") and uncached.table.passes(scope["path"]):
                self._note_passing(scope["path"])
                return self._pass(scope, receive, send, uncached)
            shortcut = self._route_hits.shortcut(scope)
            if shortcut is not None:
                return self._ahead(scope, receive, send, runtime, shortcut)
        return self._guarded(scope, receive, send, runtime)

    def _note_passing(self, path: str) -> None:
        if len(path) <= _LONGEST_PATH:
            if len(self.passing) >= _MOST_PATHS:
                self.passing.clear()
            self.passing.add(path)

    def passed_by(self, scope: Scope) -> Uncached | None:
        """What stands for a GET that goes on as it came, where that is certain before anything is looked up."""
        app_context = self._app_context
        uncached = app_context.uncached
        if uncached is None or app_context.downstream is not None or scope.get("root_path"):
            return None
        runtime = self._runtimes.get(get_running_loop())
        if runtime is None or not runtime.serving or not uncached.table.passes(scope["path"]):
            return None
        return uncached

    async def _first(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start on this loop and look at the app; where the app is at fault, say what is wrong with it."""
        runtime = await self._app_context.cache.started()
        error = self._prepare(scope)
        if error is not None:
            await PlainTextResponse(str(error), status_code=500)(scope, receive, send)
            return
        uncached = self._app_context.uncached
        assert uncached is not None
        await self._take(scope, receive, send, runtime, uncached)

    async def _pass(self, scope: Scope, receive: Receive, send: Send, uncached: Uncached) -> None:
        scope[SCOPE_KEY] = uncached
        try:
            await self._app_context.app(scope, receive, send)
        finally:
            del scope[SCOPE_KEY]

    async def _ahead(self, scope: Scope, receive: Receive, send: Send, runtime: Runtime, shortcut: Shortcut) -> None:
        """Take a request whose route is known before the app has it."""
        engine = self._app_context.engine
        stamp = engine.replica.stamp(engine.now())
        # A layer outside may have kept the request where covers find it: they see it as it comes to its route.
        shortcut.write(scope)
        try:
            handed = await shortcut.solver.solve(Request(scope, receive, send))
        except BaseException as error:
            # Errors that an app can answer are in what it gives: the request ends here.
            self._route_hits.cut_off(shortcut, error)
            raise
        if not await self._route_hits.answer(scope, send, shortcut, handed, stamp):
            shortcut.take_back(scope)
            await self._guarded(scope, receive, send, runtime, Ahead(shortcut, handed, stamp))

    async def _guarded(
        self, scope: Scope, receive: Receive, send: Send, runtime: Runtime, ahead: Ahead | None = None
    ) -> None:
        mode = self._app_context.mode
        cdn_fields = send if isinstance(send, CDNFields) else None
        incoming = Incoming(self._app_context, runtime, scope, receive, send, cdn_fields, ahead=ahead)
        mutation = None if scope["method"] in SAFE_METHODS else mode.mutation(incoming)
        for guard in GUARDS:
            passed = await guard(incoming, mutation)
            if passed is None:
                return
            incoming = passed
        try:
            if mutation is not None:
                mutation.is_answered_here()
                await run_app(mutation, scope)
            elif incoming.scope["method"] in LOOKED_UP:
                await mode.read(incoming)
            else:
                # Safe, and nothing is stored for it.
                await mode.read_by_policy(incoming)
        finally:
            # Layers outside read from their own scope what route was taken.
            for key in incoming.scope.keys() - scope.keys():
                scope[key] = incoming.scope[key]
