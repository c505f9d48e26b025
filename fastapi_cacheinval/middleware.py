"""`CacheMiddleware`: ASGI in, the front lookup, ASGI out."""

from __future__ import annotations

import logging
from asyncio import get_running_loop
from typing import Any

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_cacheinval.cache import HTTPCache, internals_of
from fastapi_cacheinval.core.checks import flag
from fastapi_cacheinval.core.decide import Serve, ServeStale
from fastapi_cacheinval.core.outcome import Result
from fastapi_cacheinval.core.rfc9111.options import HeaderOptions
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.core.token import parse_token
from fastapi_cacheinval.dependencies import SCOPE_KEY
from fastapi_cacheinval.engine.request_tags import Answering
from fastapi_cacheinval.engine.runtime import Runtime
from fastapi_cacheinval.errors import CacheinvalError, ConfigurationError
from fastapi_cacheinval.framework.answering import send_stored, without_body
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.cdn_fields import CDNFields, cdn_fields_of
from fastapi_cacheinval.framework.lifespan import Lifespan
from fastapi_cacheinval.framework.lookup import raw_target
from fastapi_cacheinval.framework.mutation import Mutation, refuse, refuses
from fastapi_cacheinval.framework.observed_hit import send_observed_hit, watch
from fastapi_cacheinval.framework.reading import Read, order_refresh, pass_on
from fastapi_cacheinval.framework.rfc9111.entrance import Entrance
from fastapi_cacheinval.grammar.fields import first
from fastapi_cacheinval.ports.downstream import Downstream
from fastapi_cacheinval.routes.middleware_stack import passes_through

__all__ = ["CacheMiddleware"]

logger = logging.getLogger("fastapi_cacheinval.middleware")

_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "QUERY"})
# The only request fields that the front lookup looks at.
_TOKEN = b"cacheinval-token"
_LOOKED_AT = frozenset({b"host", b"authorization", b"if-none-match", b"if-modified-since"})


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
        if not isinstance(honour_headers, bool | HeaderOptions):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"honour_headers is True, False or HeaderOptions, not {honour_headers!r}.")
        if cache is not None and not isinstance(cache, HTTPCache):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"cache is an HTTPCache, not {cache!r}.")
        if downstream is not None and not isinstance(downstream, Downstream):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"downstream says what a CDN is told, as CDNHeaders do, not {downstream!r}.")
        if front is not None:
            flag(front, "front, where it is given,")
        flag(emit_surrogate_key, "emit_surrogate_key")
        flag(emit_cache_status, "emit_cache_status")
        self.app = app
        self.cache = HTTPCache() if cache is None else cache
        self._core = core = internals_of(self.cache)
        self._app_context = AppContext(
            app,
            core,
            face=self.cache,
            front=front,
            emit_surrogate_key=emit_surrogate_key,
            emit_cache_status=emit_cache_status,
            downstream=downstream,
        )
        self._by_headers: Entrance | None = None
        if honour_headers is not False:
            options = HeaderOptions() if honour_headers is True else honour_headers
            self._by_headers = Entrance(self._app_context, options, self._by_policy)
        engine = core.engine
        self._replica = engine.replica
        self._counters = core.counters
        self._at = self._app_context.at()
        self._now = engine.now
        self._emit_cache_status = emit_cache_status
        self._downstream = downstream
        # While nobody records telemetry and no CDN is told anything, the common hit is answered on the spot.
        self._watched = downstream is not None
        self._runtimes = core.runtimes
        settings = engine.settings
        self._reads_own_writes = settings.read_your_writes
        self._looked_at = _LOOKED_AT | {_TOKEN} if settings.read_your_writes else _LOOKED_AT

    def __repr__(self) -> str:
        return f"<CacheMiddleware {self.cache!r}>"

    # One function on purpose: each call that it is split into costs a front hit 2 % of its time.
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: C901, PLR0912
        """The front lookup, with no await before its answer; everything else goes on."""
        if scope["type"] != "http" or SCOPE_KEY in scope:
            await self._other(scope, receive, send)
            return
        if scope["method"] == "GET":
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
                ) or self._at_as_sent(scope, host)
                if stored is not None and self._front_open():
                    now = self._now()
                    if (
                        plain
                        and isinstance(stored, StoredResponse)
                        and now < stored.early_refresh_from
                        and stored.verified == self._replica.changes
                        and now < self._replica.lease_until
                    ):
                        # What decide() would say, for nothing but comparisons.
                        if self._watched:
                            await send_observed_hit(self._app_context, scope, send, stored, now)
                            return
                        self._counters.hits += 1
                        fields = [*stored.headers, (b"age", b"%d" % (now - stored.created))]
                        if self._emit_cache_status:
                            fields.append((b"cache-status", b"cacheinval; hit; ttl=%d" % (stored.fresh_until - now)))
                        await send({"type": "http.response.start", "status": stored.status, "headers": fields})
                        await send({"type": "http.response.body", "body": stored.body})
                        return
                    if await self._answered_at_front(scope, send, stored, now):
                        return
        if self._downstream is not None:
            send = cdn_fields_of(self._app_context, scope, send) or send
        runtime = self._runtimes.get(get_running_loop()) if self._app_context.ready else None
        if runtime is None or not runtime.serving:
            runtime = await self._ready(scope)
            if runtime is None:
                await PlainTextResponse(str(self._app_context.error), status_code=500)(scope, receive, send)
                return
        if self._reads_own_writes and await self._behind(scope, receive, send, runtime):
            return
        if self._by_headers is not None:
            await self._by_headers.answer(scope, receive, send, runtime)
        elif scope["method"] == "GET":
            app_context = self._app_context
            if scope.get("root_path") or not app_context.table.passes(scope["path"]):
                await pass_on(Read(app_context, runtime, scope, receive, send), scope)
                return
            scope[SCOPE_KEY] = app_context.uncached
            try:
                await self.app(scope, receive, send)
            finally:
                del scope[SCOPE_KEY]
        else:
            await self._forward_rarer(scope, receive, send, runtime)

    async def _by_policy(self, scope: Scope, receive: Receive, send: Send, runtime: Runtime) -> None:
        """What a route with `cached()` does with a GET or HEAD, whether headers are honoured or not."""
        if scope["method"] == "GET":
            await pass_on(Read(self._app_context, runtime, scope, receive, send), scope)
        else:
            await self._forward_rarer(scope, receive, send, runtime)

    def _at_as_sent(self, scope: Scope, host: bytes | None) -> Any:
        """What the front lookup finds by the path as it was sent, for routes that may tell spellings of it apart."""
        if not self._app_context.spelled:
            return None
        return self._at((*raw_target(scope, host), scope.get("raw_path")))

    def _front_open(self) -> bool:
        """Whether the front lookup may answer now: the cache is on, and no dependency is overridden."""
        if not self._core.enabled:
            return False
        # A loop and no generator: this is on the path of every front hit.
        for provider in self._app_context.providers:  # noqa: SIM110
            if provider.dependency_overrides:
                return False
        return True

    async def _answered_at_front(self, scope: Scope, send: Send, kept: Any, now: float) -> bool:
        """The front lookup's rarer answers: variants, conditional requests, stale and early refreshed responses."""
        app_context = self._app_context
        chosen, _ = app_context.engine.choose(kept, kept.key, scope["headers"])
        result = Result.HIT
        match app_context.engine.decide(chosen, now):
            case Serve(stored, refresh):
                pass
            case ServeStale(stored):
                result, refresh = Result.STALE, True
            case _:
                return False
        if refresh and not self._core.running:
            return False
        outcome = app_context.engine.outcome(stored, result, None, now)
        seen = watch(app_context, scope, send, stored, outcome) if app_context.observed else None
        if refresh:
            cause = "" if seen is None else seen.trace
            order_refresh(app_context, self._core.runtime, scope, [*scope["headers"]], stored, cause)
        self._counters.answered(outcome, stored.route)
        cdn_fields = cdn_fields_of(app_context, scope, send)
        if cdn_fields is not None:
            cdn_fields.answered(outcome, stored, None)
            send = cdn_fields
        try:
            await send_stored(send, app_context, stored, scope["headers"], outcome)
        finally:
            if seen is not None:
                seen.left()
        return True

    async def _forward_rarer(self, scope: Scope, receive: Receive, send: Send, runtime: Runtime) -> None:
        """Unsafe requests, and HEAD."""
        app_context, method = self._app_context, scope["method"]
        if method not in _SAFE:
            mutation = Mutation(app_context, runtime, scope, receive, send)
            if refuses(mutation):
                await refuse(mutation, send)
                if mutation.seen is not None:
                    mutation.seen.left()
                return
            answering = Answering(mutation)
            try:
                await pass_on(mutation, scope)
            finally:
                answering.end()
        elif method == "HEAD" and self._head_of_get(scope):
            await self._forward_as_get(scope, receive, send, runtime)
        else:
            await pass_on(Read(app_context, runtime, scope, receive, send), scope)

    async def _behind(self, scope: Scope, receive: Receive, send: Send, runtime: Runtime) -> bool:
        """Read as far as the request's token says; a request that cannot be waited for is answered by the app: True."""
        value = first(scope["headers"], _TOKEN) if scope["method"] in ("GET", "HEAD") else None
        token = None if value is None else parse_token(value)
        if token is None or await self._core.read_up_to(token):
            return False
        exchange = Read(self._app_context, runtime, scope, receive, send)
        exchange.settled = True
        exchange.bypass("behind")
        await pass_on(exchange, scope)
        return True

    async def _ready(self, scope: Scope) -> Runtime | None:
        """Start on this loop and look at the app, where that has not been done; None where the app is at fault."""
        runtime = await self._core.started()
        return runtime if self._prepare(scope) is None else None

    def _prepare(self, scope: Scope) -> CacheinvalError | None:
        app_context = self._app_context
        # Here and not before: an app may set its providers while it starts.
        app_context.observed = self._core.observe()
        self._watched = app_context.observed or self._downstream is not None
        if not app_context.prepared:
            app_context.prepare(scope)
            if app_context.error is not None:
                logger.error("%s", app_context.error)
        return app_context.error

    def _head_of_get(self, scope: Scope) -> bool:
        """Whether a HEAD request asks for the head of a cached GET that has no HEAD of its own."""
        table = self._app_context.table
        if table.answers("HEAD", scope["path"], scope):
            return False
        plan = table.match("GET", scope["path"], scope)
        return plan is not None and plan.policy is not None

    async def _forward_as_get(self, scope: Scope, receive: Receive, send: Send, runtime: Runtime) -> None:
        inner = {**scope, "method": "GET"}
        exchange = Read(self._app_context, runtime, scope, receive, without_body(send))
        if isinstance(send, CDNFields):
            exchange.cdn_fields = send
            send.scope = inner
        try:
            await pass_on(exchange, inner)
        finally:
            # Layers outside read from their own scope what route was taken.
            for key in inner.keys() - scope.keys():
                scope[key] = inner[key]

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" and SCOPE_KEY not in scope:
            scope[SCOPE_KEY] = self
            await Lifespan(self.cache, self._prepare, receive, send).run(self.app, scope)
            return
        if scope["type"] == "websocket" and (self._app_context.ready or self._prepare(scope) is None):
            self._app_context.table.meet_websocket()
        await self.app(scope, receive, send)


passes_through(CacheMiddleware)
