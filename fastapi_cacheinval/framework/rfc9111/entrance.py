"""Where requests come in under `honour_headers`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.types import Receive, Scope, Send

from fastapi_cacheinval.core.rfc9111.options import HeaderOptions
from fastapi_cacheinval.engine.request_tags import current_bag
from fastapi_cacheinval.engine.runtime import Runtime
from fastapi_cacheinval.framework.app_context import Site
from fastapi_cacheinval.framework.reading import Read, pass_on
from fastapi_cacheinval.framework.rfc9111.lookup import SharedLookup
from fastapi_cacheinval.framework.rfc9111.mutation import SharedMutation
from fastapi_cacheinval.framework.rfc9111.resource import SearchRules

__all__ = ["ByPolicy", "Entrance"]

ByPolicy = Callable[[Scope, Receive, Send, Runtime], Awaitable[None]]

_SAFE_BUT_NOT_CACHED = frozenset({"OPTIONS", "TRACE", "QUERY"})


class Entrance:
    """Takes what the front lookup has not answered; `by_policy` takes what is for routes with `cached()`."""

    def __init__(self, site: Site, options: HeaderOptions, by_policy: ByPolicy) -> None:
        self._site = site
        self._by_policy = by_policy
        self._options = options
        self._rules = SearchRules()

    async def answer(self, scope: Scope, receive: Receive, send: Send, runtime: Runtime) -> None:
        """One request."""
        site, method = self._site, scope["method"]
        if method in ("GET", "HEAD"):
            lookup = SharedLookup(site, runtime, scope, receive, send, self._options, self._rules)
            token = current_bag.set(lookup.exchange)
            try:
                if await lookup.run():
                    return
            finally:
                current_bag.reset(token)
            await self._by_policy(scope, receive, send, runtime)
        elif method in _SAFE_BUT_NOT_CACHED:
            await pass_on(Read(site, runtime, scope, receive, send), scope)
        else:
            mutation = SharedMutation(site, runtime, scope, receive, send, self._options, self._rules)
            token = current_bag.set(mutation)
            try:
                await pass_on(mutation, scope)
            finally:
                current_bag.reset(token)
