"""Where requests come in under `honour_headers`."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from fastapi_cacheinval.core.shared.options import HeaderOptions
from fastapi_cacheinval.engine.collecting import current_bag
from fastapi_cacheinval.engine.runtime import Runtime
from fastapi_cacheinval.framework.reading import Read, pass_on
from fastapi_cacheinval.framework.shared.lookup import SharedLookup
from fastapi_cacheinval.framework.shared.mutation import SharedMutation
from fastapi_cacheinval.framework.shared.resource import SearchRules
from fastapi_cacheinval.framework.site import Site

__all__ = ["Entrance"]

_SAFE_BUT_NOT_CACHED = frozenset({"OPTIONS", "TRACE", "QUERY"})


class Entrance:
    """Takes every request that the front lookup has not answered."""

    def __init__(self, site: Site, options: HeaderOptions) -> None:
        self._site = site
        self._options = options
        self._rules = SearchRules()

    async def answer(self, scope: Scope, receive: Receive, send: Send, runtime: Runtime) -> None:
        """One request."""
        site, method = self._site, scope["method"]
        if method in ("GET", "HEAD"):
            lookup = SharedLookup(site, runtime, scope, receive, send, self._options, self._rules)
            token = current_bag.set(lookup.exchange)
            try:
                await lookup.run()
            finally:
                current_bag.reset(token)
        elif method in _SAFE_BUT_NOT_CACHED:
            await pass_on(Read(site, runtime, scope, receive, send), scope)
        else:
            mutation = SharedMutation(site, runtime, scope, receive, send, self._options, self._rules)
            token = current_bag.set(mutation)
            try:
                await pass_on(mutation, scope)
            finally:
                current_bag.reset(token)
