"""What stands before every mode: each guard lets a request on, changes it, or answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from fastapi_cacheinval.core.token import parse_token
from fastapi_cacheinval.framework.answering import without_body
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.incoming import Incoming
from fastapi_cacheinval.framework.mutation import refuse, refuses
from fastapi_cacheinval.grammar.fields import first

__all__ = ["GUARDS", "TOKEN_FIELD", "Guard"]

TOKEN_FIELD = b"cacheinval-token"
"""The request field by which a client says how far it has read (`read_your_writes`)."""

_LOOKED_UP = frozenset({"GET", "HEAD"})


async def disconnected(app_context: AppContext, incoming: Incoming) -> Incoming | None:
    """`mutations_when_disconnected="refuse"`: what cannot be purged is not written."""
    mutation = incoming.mutation
    if mutation is None or not refuses(mutation):
        return incoming
    await refuse(mutation, incoming.send)
    if mutation.seen is not None:
        mutation.seen.left()
    return None


async def head_of_get(app_context: AppContext, incoming: Incoming) -> Incoming:
    """A HEAD for a cached GET that has no HEAD of its own is that GET, without its content."""
    scope, table = incoming.scope, app_context.table
    if scope["method"] != "HEAD" or table.answers("HEAD", scope["path"], scope):
        return incoming
    plan = table.match("GET", scope["path"], scope)
    if plan is None or plan.policy is None:
        return incoming
    inner = {**scope, "method": "GET"}
    if incoming.cdn_fields is not None:
        incoming.cdn_fields.follow(inner)
    return replace(incoming, scope=inner, send=without_body(incoming.send))


async def switched_off(app_context: AppContext, incoming: Incoming) -> Incoming:
    """The kill switch: the app answers every request, and every purge is still published."""
    return incoming if app_context.cache.enabled else replace(incoming, closed="disabled")


async def behind(app_context: AppContext, incoming: Incoming) -> Incoming:
    """`read_your_writes`: read as far as the client's token says; where that is out of reach, the app answers."""
    if not app_context.engine.settings.read_your_writes or incoming.scope["method"] not in _LOOKED_UP:
        return incoming
    value = first(incoming.scope["headers"], TOKEN_FIELD)
    token = None if value is None else parse_token(value)
    if token is None or await app_context.cache.read_up_to(token):
        return incoming
    return replace(incoming, closed=incoming.closed or "behind")


Guard = Callable[[AppContext, Incoming], Awaitable[Incoming | None]]

GUARDS: tuple[Guard, ...] = (disconnected, head_of_get, switched_off, behind)
"""Every guard, in order. Each gives the request as it goes on, or None where it has answered it."""
