"""Where requests come in under `honour_headers`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from starlette.types import Receive, Scope, Send

from fastapi_cacheinval.core.rfc9111.options import HeaderOptions
from fastapi_cacheinval.engine.request_tags import Answering
from fastapi_cacheinval.engine.runtime import Runtime
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.reading import Read, pass_on
from fastapi_cacheinval.framework.rfc9111.lookup import HeaderLookup
from fastapi_cacheinval.framework.rfc9111.mutation import HeaderMutation
from fastapi_cacheinval.framework.rfc9111.resource import SearchRules

__all__ = ["ByPolicy", "Entrance"]

ByPolicy = Callable[[Scope, Receive, Send, Runtime], Awaitable[None]]

_SAFE_BUT_NOT_CACHED = frozenset({"OPTIONS", "TRACE", "QUERY"})


class Entrance:
    """Takes what the front lookup has not answered; `by_policy` takes what is for routes with `cached()`."""

    def __init__(self, app_context: AppContext, options: HeaderOptions, by_policy: ByPolicy) -> None:
        self._app_context = app_context
        self._by_policy = by_policy
        self._options = options
        self._rules = SearchRules()
        app_context.mutates = partial(HeaderMutation, options=options, rules=self._rules)

    async def answer(self, scope: Scope, receive: Receive, send: Send, runtime: Runtime) -> None:
        """One request."""
        app_context, method = self._app_context, scope["method"]
        if method in ("GET", "HEAD"):
            lookup = HeaderLookup(app_context, runtime, scope, receive, send, self._options, self._rules)
            answering = Answering(lookup.exchange)
            try:
                if await lookup.run():
                    return
            finally:
                answering.end()
            await self._by_policy(scope, receive, send, runtime)
        elif method in _SAFE_BUT_NOT_CACHED:
            await pass_on(Read(app_context, runtime, scope, receive, send), scope)
        else:
            mutation = HeaderMutation(app_context, runtime, scope, receive, send, self._options, self._rules)
            answering = Answering(mutation)
            try:
                await pass_on(mutation, scope)
            finally:
                answering.end()
