"""What stands before every mode: each guard lets a request on, changes it, or answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import ceil

from starlette.types import Send

from fastapi_cacheinval.core.outcome import Outcome, Reason, Result
from fastapi_cacheinval.core.token import TOKEN_FIELD, parse_token
from fastapi_cacheinval.framework.incoming import Incoming
from fastapi_cacheinval.framework.mutation import Mutation
from fastapi_cacheinval.framework.responding import status_fields, without_body
from fastapi_cacheinval.grammar.fields import first
from fastapi_cacheinval.routes.plan import LOOKED_UP

__all__ = ["GUARDS", "Guard", "refused"]

_REFUSED = b"Nothing was changed: the cache cannot be invalidated at the moment. Try again later."


async def refused(mutation: Mutation, send: Send) -> bool:
    """Answer 503 where the purge of a mutation could not be written; whether it was answered so."""
    engine = mutation.app_context.engine
    if engine.settings.mutations_when_disconnected != "refuse" or engine.replica.live(engine.now()):
        return False
    if not mutation.purges_something():
        return False
    outcome = Outcome(Result.BYPASS, reason=Reason.METHOD, detail="disconnected")
    mutation.app_context.counters.mutations["refused"] += 1
    mutation.described(outcome)
    fields = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(_REFUSED)),
        (b"retry-after", b"%d" % ceil(engine.settings.staleness_bound)),
        *status_fields(mutation.app_context, outcome),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": fields})
    await send({"type": "http.response.body", "body": _REFUSED})
    return True


async def disconnected(incoming: Incoming, mutation: Mutation | None) -> Incoming | None:
    """`mutations_when_disconnected="refuse"`: what cannot be purged is not written."""
    if mutation is None or not await refused(mutation, incoming.send):
        return incoming
    if mutation.seen is not None:
        mutation.seen.left()
    return None


async def head_of_get(incoming: Incoming, mutation: Mutation | None) -> Incoming:
    """A HEAD for a cached GET that has no HEAD of its own is that GET, without its content."""
    scope = incoming.scope
    if scope["method"] != "HEAD" or not incoming.app_context.table.head_of_get(scope["path"], scope):
        return incoming
    inner = {**scope, "method": "GET"}
    if incoming.cdn_fields is not None:
        incoming.cdn_fields.follow(inner)
    return incoming._replace(scope=inner, send=without_body(incoming.send))


async def switched_off(incoming: Incoming, mutation: Mutation | None) -> Incoming:
    """The kill switch: the app answers every request, and every purge is still published."""
    return incoming if incoming.app_context.cache.enabled else incoming._replace(closed="disabled")


async def behind(incoming: Incoming, mutation: Mutation | None) -> Incoming:
    """`read_your_writes`: read as far as the client's token says; where that is out of reach, the app answers."""
    app_context = incoming.app_context
    if not app_context.engine.settings.read_your_writes or incoming.scope["method"] not in LOOKED_UP:
        return incoming
    value = first(incoming.scope["headers"], TOKEN_FIELD)
    token = None if value is None else parse_token(value)
    if token is None or await app_context.cache.read_up_to(token):
        return incoming
    return incoming._replace(closed=incoming.closed or "behind")


Guard = Callable[[Incoming, Mutation | None], Awaitable[Incoming | None]]

GUARDS: tuple[Guard, ...] = (disconnected, head_of_get, switched_off, behind)
"""Every guard, in order. Each gives the request as it goes on, or None where it has answered it.

The second argument is what becomes of an unsafe request, None for a safe one.
"""
