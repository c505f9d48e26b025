"""What stands before every mode: each guard lets a request on, changes it, or answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from fastapi_cacheinval.core.token import parse_token
from fastapi_cacheinval.framework.answering import without_body
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.arrival import Arrival
from fastapi_cacheinval.framework.mutation import refuse, refuses
from fastapi_cacheinval.grammar.fields import first

__all__ = ["GUARDS", "TOKEN_FIELD", "Guard"]

TOKEN_FIELD = b"cacheinval-token"
"""The request field by which a client says how far it has read (`read_your_writes`)."""

_LOOKED_UP = frozenset({"GET", "HEAD"})


async def disconnected(app_context: AppContext, arrival: Arrival) -> Arrival | None:
    """`mutations_when_disconnected="refuse"`: what cannot be purged is not written."""
    mutation = arrival.mutation
    if mutation is None or not refuses(mutation):
        return arrival
    await refuse(mutation, arrival.send)
    if mutation.seen is not None:
        mutation.seen.left()
    return None


async def head_of_get(app_context: AppContext, arrival: Arrival) -> Arrival:
    """A HEAD for a cached GET that has no HEAD of its own is that GET, without its content."""
    scope, table = arrival.scope, app_context.table
    if scope["method"] != "HEAD" or table.answers("HEAD", scope["path"], scope):
        return arrival
    plan = table.match("GET", scope["path"], scope)
    if plan is None or plan.policy is None:
        return arrival
    inner = {**scope, "method": "GET"}
    if arrival.cdn_fields is not None:
        arrival.cdn_fields.follow(inner)
    return replace(arrival, scope=inner, send=without_body(arrival.send))


async def switched_off(app_context: AppContext, arrival: Arrival) -> Arrival:
    """The kill switch: the app answers every request, and every purge is still published."""
    return arrival if app_context.cache.enabled else replace(arrival, closed="disabled")


async def behind(app_context: AppContext, arrival: Arrival) -> Arrival:
    """`read_your_writes`: read as far as the client's token says; where that is out of reach, the app answers."""
    if not app_context.engine.settings.read_your_writes or arrival.scope["method"] not in _LOOKED_UP:
        return arrival
    value = first(arrival.scope["headers"], TOKEN_FIELD)
    token = None if value is None else parse_token(value)
    if token is None or await app_context.cache.read_up_to(token):
        return arrival
    return replace(arrival, closed=arrival.closed or "behind")


Guard = Callable[[AppContext, Arrival], Awaitable[Arrival | None]]

GUARDS: tuple[Guard, ...] = (disconnected, head_of_get, switched_off, behind)
"""Every guard, in order. Each gives the request as it goes on, or None where it has answered it."""
