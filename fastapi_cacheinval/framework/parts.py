"""The composition root of the framework: what one middleware is made of.

It imports as many modules as there are parts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_cacheinval.cache import HTTPCache, internals_of
from fastapi_cacheinval.core.rfc9111.options import HeaderOptions
from fastapi_cacheinval.core.token import TOKEN_FIELD
from fastapi_cacheinval.errors import CacheinvalError
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.asking_again import order_shadow
from fastapi_cacheinval.framework.dispatch import Dispatcher
from fastapi_cacheinval.framework.lifespan import Lifespan
from fastapi_cacheinval.framework.modes import mode_of
from fastapi_cacheinval.framework.raw_hits import RawHits
from fastapi_cacheinval.framework.served import Served
from fastapi_cacheinval.ports.downstream import Downstream

__all__ = ["Parts"]

logger = logging.getLogger("fastapi_cacheinval.middleware")

# The only request fields that the front lookup looks at.
_LOOKED_AT = frozenset(
    {b"host", b"authorization", b"content-length", b"transfer-encoding", b"if-none-match", b"if-modified-since"}
)


class Parts:
    """The parts of one middleware around an app.

    `watch` has front hits take the way that tells of them, or the quick one. `front_open` says whether the front lookup
    may answer at a moment, and `recorded` whether somebody has to be told of each hit.
    """

    def __init__(
        self,
        app: ASGIApp,
        cache: HTTPCache | None,
        *,
        honour_headers: bool | HeaderOptions,
        front: bool | None,
        emit_surrogate_key: bool,
        emit_cache_status: bool,
        downstream: Downstream | None,
        watch: Callable[[], None],
        front_open: Callable[[float], bool],
        recorded: Callable[[], bool],
    ) -> None:
        self.cache = HTTPCache() if cache is None else cache
        # A cache that nobody else knows is purged by nobody.
        self.own_cache = cache is None
        self.core = core = internals_of(self.cache)
        self.app_context = AppContext(
            app,
            core,
            face=self.cache,
            mode=mode_of(honour_headers),
            front=front,
            emit_surrogate_key=emit_surrogate_key,
            emit_cache_status=emit_cache_status,
            downstream=downstream,
        )
        if core.shadow.on:
            self.app_context.shadow = partial(order_shadow, self.app_context)
        self.dispatch = Dispatcher(self.app_context, self.prepare)
        # The same for a server that answers before it makes a task.
        self.raw_hits = RawHits(self.app_context, front_open=front_open, recorded=recorded)
        self.looked_at = _LOOKED_AT | {TOKEN_FIELD} if core.settings.read_your_writes else _LOOKED_AT
        self._watch = watch
        core.feed.watch(watch)
        # Kept here: the cache knows it as long as the middleware lives.
        self._served: Served | None = None

    def prepare(self, scope: Scope) -> CacheinvalError | None:
        """Look at the app, once, and have the cache know it; what is wrong with it, if anything."""
        app_context = self.app_context
        # Here and not before: an app may set its providers while it starts.
        app_context.observed = self.core.observe()
        self._watch()
        if not app_context.prepared:
            app_context.prepare(scope)
            if self.own_cache:
                self.core.neighbour.made_for_an_app()
            if app_context.error is None:
                self._served = Served(app_context, scope)
                self.core.engine.apps.open(self._served)
            elif scope["type"] != "lifespan":
                # To a lifespan the server says it.
                logger.error("%s", app_context.error)
        return app_context.error

    async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app's whole lifespan, and the cache's beside it."""
        await Lifespan(self.cache, self.prepare, receive, send).run(self.app_context.app, scope)
