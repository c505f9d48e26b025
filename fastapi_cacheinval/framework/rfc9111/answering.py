"""Sending what is stored, as much of it as was asked for."""

from __future__ import annotations

from starlette.types import Send

from fastapi_cacheinval.core.conditional import not_modified, not_modified_fields
from fastapi_cacheinval.core.outcome import Outcome
from fastapi_cacheinval.core.rfc9111.asking import Asked
from fastapi_cacheinval.core.rfc9111.ranges import cut
from fastapi_cacheinval.core.rfc9111.response import SharedResponse
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.responding import stored_fields
from fastapi_cacheinval.grammar.fields import RawField

__all__ = ["send_cut", "send_kept"]


async def send_kept(
    send: Send, app_context: AppContext, stored: SharedResponse, asked: Asked, outcome: Outcome
) -> None:
    """Send a stored response, a 304 or the ranges that stand for it."""
    await send_cut(send, app_context, stored, asked, stored_fields(app_context, stored, outcome))


async def send_cut(
    send: Send, app_context: AppContext, stored: SharedResponse, asked: Asked, fields: list[RawField]
) -> None:
    """Send a response that is at hand with these fields, or the 304 or the ranges that stand for it."""
    wall = app_context.cache.clock.wall()
    status, body = stored.status, stored.body
    if not_modified(asked.headers, status, stored.etag, stored.last_modified, wall):
        status, fields, body = 304, not_modified_fields(fields), b""
    else:
        part = cut(asked, stored, fields, wall)
        if part is not None:
            status, fields, body = part.status, part.fields, part.body
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})
