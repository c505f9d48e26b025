"""Front hits while somebody looks on: telemetry, a CDN in front, or who has subscribed to the feed."""

from __future__ import annotations

from starlette.types import Scope, Send

from fastapi_cacheinval.core.outcome import Outcome, Result
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.cdn_fields import cdn_fields_of
from fastapi_cacheinval.framework.deciding import tell_decision
from fastapi_cacheinval.framework.server_spans import contrib_outside, name_route
from fastapi_cacheinval.ports.tracing import Seen

__all__ = ["send_observed_hit", "watch"]


def watch(app_context: AppContext, scope: Scope, stored: StoredResponse, outcome: Outcome) -> Seen | None:
    """Say of the request's span, and of the server's metrics, what a front hit is."""
    if stored.route is not None:
        name_route(scope, contrib_outside(scope), stored.route, routed=False)
    tracing = app_context.cache.tracing
    if not tracing.on:
        return None
    seen = tracing.enter(scope["headers"])
    seen.answered(outcome, stored.trace, stored.route)
    return seen


async def send_observed_hit(
    app_context: AppContext, scope: Scope, send: Send, stored: StoredResponse, now: float
) -> None:
    """Answer with a fresh response that nothing can concern: what the middleware does inline where nobody looks on."""
    age, ttl = now - stored.created, int(stored.fresh_until - now)
    app_context.counters.front_hit(stored)
    seen: Seen | None = None
    outcome = Outcome(Result.HIT, "l1", None, age, ttl)
    if app_context.cache.feed.on:
        tell_decision(app_context.cache, scope, outcome, began=now, route=stored.route, stored=stored)
    if app_context.cache.tracing.on or app_context.downstream is not None:
        seen = watch(app_context, scope, stored, outcome) if app_context.observed else None
        cdn_fields = cdn_fields_of(app_context, scope, send)
        if cdn_fields is not None:
            cdn_fields.answered(outcome, stored, None)
            send = cdn_fields
    elif stored.route is not None and app_context.observed:
        name_route(scope, contrib_outside(scope), stored.route, routed=False)
    fields = [*stored.headers, (b"age", b"%d" % age)]
    if app_context.emit_cache_status:
        fields.append((b"cache-status", b"cacheinval; hit; ttl=%d" % ttl))
    try:
        await send({"type": "http.response.start", "status": stored.status, "headers": fields})
        await send({"type": "http.response.body", "body": stored.body})
    finally:
        if seen is not None:
            seen.left()
    app_context.shadow(scope, scope["headers"], stored)
