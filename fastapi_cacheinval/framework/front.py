"""The front lookup's rarer answers: variants, conditional requests, stale and early refreshed responses."""

from __future__ import annotations

from starlette.types import Scope, Send

from fastapi_cacheinval.core.decide import Serve, ServeStale
from fastapi_cacheinval.core.outcome import Result
from fastapi_cacheinval.engine.engine import Kept
from fastapi_cacheinval.framework.answering import send_stored
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.cdn_fields import cdn_fields_of
from fastapi_cacheinval.framework.deciding import tell_decision
from fastapi_cacheinval.framework.incoming import Entered
from fastapi_cacheinval.framework.observed_hit import watch
from fastapi_cacheinval.framework.refresh import order_refresh

__all__ = ["answered_at_front"]


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
    seen = watch(app_context, scope, stored, outcome) if app_context.observed else None
    if refresh:
        entered = Entered(scope, [*scope["headers"]], engine.replica.stamp(now), seen, None)
        order_refresh(app_context, cache.runtime, entered, stored)
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
