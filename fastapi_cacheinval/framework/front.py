"""The front lookup's answers that the middleware does not give inline.

Those are fresh hits while somebody is told of them (telemetry, a CDN in front, subscribers of the feed), variants,
conditional requests, stale and early refreshed responses.
"""

from __future__ import annotations

from starlette.types import Scope, Send

from fastapi_cacheinval.core.decide import Serve, ServeStale
from fastapi_cacheinval.core.hit_fields import AGES
from fastapi_cacheinval.core.outcome import Outcome, Result
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.engine.engine import Kept
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.cdn_fields import cdn_fields_of
from fastapi_cacheinval.framework.deciding import tell_decision
from fastapi_cacheinval.framework.refresh import order_refresh_at_front
from fastapi_cacheinval.framework.responding import send_stored
from fastapi_cacheinval.framework.server_spans import name_hit
from fastapi_cacheinval.ports.tracing import Seen

__all__ = ["answered_at_front", "send_observed_hit"]


def _watch(app_context: AppContext, scope: Scope, stored: StoredResponse) -> Seen | None:
    """Give the server's span and metrics the route of a front hit; the request, where its span is recorded."""
    if stored.route is not None:
        name_hit(scope, stored.route)
    tracing = app_context.cache.tracing
    return tracing.hit(scope["headers"]) if tracing.on else None


# Written as the middleware's own hit is: what nobody asks for is not made.
async def send_observed_hit(
    app_context: AppContext, scope: Scope, send: Send, stored: StoredResponse, now: float
) -> None:
    """Answer with a fresh response that nothing can concern; the middleware does it inline where nobody is told."""
    app_context.counters.front_hit(stored)
    seen = _watch(app_context, scope, stored) if app_context.observed else None
    if seen is not None or app_context.cache.feed.on or app_context.downstream is not None:
        send = _tell(app_context, scope, send, stored, now, seen)
    fields = [*stored.headers, AGES[int(now - stored.created)]]
    if app_context.emit_cache_status:
        fields.append((b"cache-status", b"cacheinval; hit; ttl=%d" % (stored.fresh_until - now)))
    try:
        await send({"type": "http.response.start", "status": stored.status, "headers": fields})
        await send({"type": "http.response.body", "body": stored.body})
    finally:
        if seen is not None:
            seen.left()
    app_context.shadow(scope, scope["headers"], stored)


def _tell(
    app_context: AppContext, scope: Scope, send: Send, stored: StoredResponse, now: float, seen: Seen | None
) -> Send:
    """Tell the feed, the span and the CDN of a hit; where its answer is sent."""
    outcome = Outcome(Result.HIT, "l1", None, now - stored.created, int(stored.fresh_until - now))
    if app_context.cache.feed.on:
        tell_decision(app_context.cache, scope, outcome, began=now, route=stored.route, stored=stored)
    if seen is not None:
        seen.answered(outcome, stored.trace, stored.route)
    cdn_fields = cdn_fields_of(app_context, scope, send)
    if cdn_fields is None:
        return send
    cdn_fields.answered(outcome, stored, None)
    return cdn_fields


async def answered_at_front(app_context: AppContext, scope: Scope, send: Send, kept: Kept, now: float) -> bool:
    """Answer with what is kept, if the front lookup may; False where the request has to go on."""
    engine, cache = app_context.engine, app_context.cache
    chosen, _ = engine.choose(kept, kept.key, scope["headers"])
    result = Result.HIT
    match engine.decide(chosen, now):
        case Serve(stored, refresh):
            pass
        case ServeStale(stored):
            result, refresh = Result.STALE, True
        case _:
            return False
    if refresh and not cache.running:
        return False
    outcome = engine.outcome(stored, result, None, now)
    seen = _watch(app_context, scope, stored) if app_context.observed else None
    if seen is not None:
        seen.answered(outcome, stored.trace, stored.route)
    if refresh:
        order_refresh_at_front(app_context, scope, seen, stored, now)
    app_context.counters.answered(outcome, stored.route)
    if cache.feed.on:
        tell_decision(cache, scope, outcome, began=now, route=stored.route, stored=stored)
    cdn_fields = cdn_fields_of(app_context, scope, send)
    if cdn_fields is not None:
        cdn_fields.answered(outcome, stored, None)
        send = cdn_fields
    try:
        await send_stored(send, app_context, stored, scope["headers"], outcome)
    finally:
        if seen is not None:
            seen.left()
    if result is Result.HIT:
        app_context.shadow(scope, scope["headers"], stored)
    return True
