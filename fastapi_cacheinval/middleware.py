"""`CacheMiddleware`: ASGI in, the front lookup, ASGI out."""

from __future__ import annotations

import logging
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_cacheinval.cache import HTTPCache, internals_of
from fastapi_cacheinval.core.checks import flag
from fastapi_cacheinval.core.hit_fields import AGES
from fastapi_cacheinval.core.rfc9111.options import HeaderOptions
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.dependencies import SCOPE_KEY
from fastapi_cacheinval.errors import ConfigurationError
from fastapi_cacheinval.framework.front import answered_at_front, send_observed_hit
from fastapi_cacheinval.framework.parts import Parts
from fastapi_cacheinval.framework.responding import send_response
from fastapi_cacheinval.ports.downstream import Downstream
from fastapi_cacheinval.routes.layer_kinds import passes_through

__all__ = ["CacheMiddleware"]

logger = logging.getLogger("fastapi_cacheinval.middleware")

# A look takes microseconds, and the next one comes this many times later.
_LOOK_SHARE = 100


class CacheMiddleware:
    """Answers GET requests from what is stored, fills what is not, and publishes what mutations purge.

    - `cache`: an `HTTPCache`; one that keeps everything in this process is made without it.
    - `honour_headers`: True makes every route without a `cached()` of its own, of any ASGI app, cacheable by
      what its responses' headers say (RFC 9111, as a shared cache); `HeaderOptions` chooses what it leaves open.
    - `front`: True serves proved shared responses before routing whatever middleware stands inside
      this one; False never does; None does so where all of it is known to be harmless.
    - `emit_surrogate_key`, `emit_cache_status`: whether clients see those fields.
    - `downstream`: how a CDN in front, which is purged by tags, is told what it may keep; tags are for it alone then.

    It starts, audits the routes and stops with the app's lifespan, or starts at the first request.
    """

    def __init__(
        self,
        app: ASGIApp,
        cache: HTTPCache | None = None,
        *,
        honour_headers: bool | HeaderOptions = False,
        front: bool | None = None,
        emit_surrogate_key: bool = True,
        emit_cache_status: bool = True,
        downstream: Downstream | None = None,
    ) -> None:
        if cache is not None and not isinstance(cache, HTTPCache):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"cache is an HTTPCache, not {cache!r}.")
        if downstream is not None and not isinstance(downstream, Downstream):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"downstream says what a CDN is told, as CDNHeaders do, not {downstream!r}.")
        if front is not None and not isinstance(front, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"front is True, False or None, not {front!r}.")
        flag(emit_surrogate_key, "emit_surrogate_key")
        flag(emit_cache_status, "emit_cache_status")
        self._honour_headers = honour_headers
        self._parts = parts = Parts(
            app,
            cache,
            honour_headers=honour_headers,
            front=front,
            emit_surrogate_key=emit_surrogate_key,
            emit_cache_status=emit_cache_status,
            downstream=downstream,
            watch=self._watch,
            front_open=self._front_open,
            recorded=lambda: self._watched,
        )
        self.cache = parts.cache
        self.raw_hits = parts.raw_hits
        self._core = parts.core
        # The caches of middlewares that requests have come through before.
        self._outer: list[HTTPCache] = []
        self._app_context = parts.app_context
        self._dispatch = parts.dispatch
        self._passing = self._dispatch.passing
        engine = parts.core.engine
        self._replica = engine.replica
        self._at = self._app_context.at()
        self._now = engine.now
        self._emit_cache_status = emit_cache_status
        # While nobody records telemetry, hears the feed or is a CDN in front, the common hit is answered on the spot.
        self._watch()
        # When the routes were last looked at, and how long a front hit may trust that.
        self._looked = self._look_every = 0.0
        self._looked_at = parts.looked_at

    @property
    def app(self) -> ASGIApp:
        """What requests go on to. When another app is set here, it is looked at before anything is handed out."""
        return self._app_context.app

    @app.setter
    def app(self, app: ASGIApp) -> None:
        self._app_context.replace(app)

    def again(self, app: ASGIApp) -> CacheMiddleware:
        """A new middleware with the same options around `app`.

        Test helpers call it after they have changed the cache's insides.
        """
        app_context = self._app_context
        return type(self)(
            app,
            self.cache,
            honour_headers=self._honour_headers,
            front=app_context.front,
            emit_surrogate_key=app_context.emit_surrogate_key,
            emit_cache_status=app_context.emit_cache_status,
            downstream=app_context.downstream,
        )

    @property
    def front(self) -> bool | None:
        """What its author says of the front lookup."""
        return self._app_context.front

    @property
    def by_headers(self) -> bool:
        """Whether responses are cached by their headers where their routes have no policy."""
        return self._app_context.mode.by_headers

    def __repr__(self) -> str:
        return f"<CacheMiddleware {self.cache!r}>"

    # One function on purpose: each call that it is split into costs a front hit 2 % of its time.
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: C901, PLR0912
        """The front lookup, with no await before its answer; everything else goes on."""
        if scope["type"] != "http" or SCOPE_KEY in scope:
            await self._other(scope, receive, send)
            return
        if scope["method"] == "GET":
            if scope["path"] in self._passing:
                # No cached route had this path when it was last asked for.
                uncached = self._dispatch.passed_by(scope)
                if uncached is not None:
                    scope[SCOPE_KEY] = uncached
                    try:
                        await self._app_context.app(scope, receive, send)
                    finally:
                        del scope[SCOPE_KEY]
                    return
            host = None
            plain = True
            looked_at = self._looked_at
            for name, value in scope["headers"]:
                if name in looked_at:
                    if name == b"host" and host is None:
                        host = value
                    elif name[:2] == b"if":
                        plain = False
                    else:
                        break
            else:
                get = scope.get
                stored = self._at(
                    (host, scope["path"], get("query_string", b""), get("scheme", "http"), get("root_path", ""))
                ) or (self._app_context.at_as_sent(scope, host) if self._app_context.spelled else None)
                if stored is not None and self._front_open(now := self._now()):
                    if (
                        isinstance(stored, StoredResponse)
                        and now < stored.early_refresh_from
                        and stored.verified == self._replica.changes
                        and now < self._replica.lease_until
                        and (plain or not self._watched)
                    ):
                        # What decide() would say, for nothing but comparisons.
                        if self._watched:
                            await send_observed_hit(self._app_context, scope, send, stored, now)
                            return
                        stored.counts.front_hits += 1
                        fields = [*stored.headers, AGES[int(now - stored.created)]]
                        if self._emit_cache_status:
                            fields.append((b"cache-status", b"cacheinval; hit; ttl=%d" % (stored.fresh_until - now)))
                        if not plain:
                            await send_response(send, self._app_context, stored, scope["headers"], fields)
                            return
                        await send({"type": "http.response.start", "status": stored.status, "headers": fields})
                        await send({"type": "http.response.body", "body": stored.body})
                        return
                    if await answered_at_front(self._app_context, scope, send, stored, now):
                        return
        await self._dispatch(scope, receive, send)

    def at_front(self, scope: Scope) -> StoredResponse | None:
        """What the front lookup would answer a plain GET with, fresh, without answering it: for searches in tests."""
        return self.raw_hits.fresh_at(scope)

    def _front_open(self, now: float) -> bool:
        """Whether the front lookup may answer now: the cache is on, nothing is overridden, and the app is the same."""
        if not self._core.enabled:
            return False
        # The same moment again is a clock that stands still: it tells nothing of how long ago the last look was.
        if not 0 < now - self._looked < self._look_every and self._look(now):
            return False
        # A loop and no generator: this is on the path of every front hit.
        for provider in self._app_context.providers:  # noqa: SIM110
            if provider.dependency_overrides:
                return False
        return True

    def _look(self, now: float) -> bool:
        """Look whether routes or layers were changed; the looks take about a hundredth of the time."""
        # A second middleware of the app may find what the first has filled before it has looked at the app itself.
        changed = not self._app_context.ready or self._app_context.table.look()
        # The feed's logger may have been switched on or off.
        self._watch()
        self._looked = after = self._now()
        self._look_every = min(_LOOK_SHARE * (after - now), self._app_context.table.longest_trust)
        return changed

    def _watch(self) -> None:
        """Have front hits take the way that tells of them, or the quick one."""
        core, app_context = self._core, self._app_context
        told = app_context.observed or app_context.downstream is not None
        self._watched = told or core.feed.on or core.shadow.on

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" and SCOPE_KEY not in scope:
            scope[SCOPE_KEY] = self
            await self._parts.live(scope, receive, send)
            return
        if scope["type"] == "websocket" and (self._app_context.ready or self._parts.prepare(scope) is None):
            self._app_context.table.meet_websocket()
        if SCOPE_KEY in scope:
            self._within(scope[SCOPE_KEY])
        await self.app(scope, receive, send)

    def _within(self, outer: Any) -> None:
        """A request comes from another middleware, whose cache keeps what this app answers; `outer` stands for it."""
        cache = outer.cache if isinstance(outer, CacheMiddleware) else outer.face
        if cache is self.cache or not isinstance(cache, HTTPCache) or cache in self._outer:
            return
        self._outer.append(cache)
        self._core.purger.pass_on_to(internals_of(cache).purger)
        if not self._parts.own_cache:
            logger.warning(
                "The app of the HTTPCache of namespace %r is also behind the CacheMiddleware of another HTTPCache, of "
                "namespace %r, which keeps what is answered there. Purges that this process makes with the first are "
                "made with the other as well; those of other processes are not. Give both the same HTTPCache.",
                self.cache.settings.namespace,
                cache.settings.namespace,
            )


passes_through(CacheMiddleware)
