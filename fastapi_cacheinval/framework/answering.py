"""Writing answers: a stored response, a 304, and the fields that say how an answer came."""

from __future__ import annotations

from starlette.types import Message, Scope, Send

from fastapi_cacheinval.core.client_lifetime import client_fields
from fastapi_cacheinval.core.conditional import not_modified, not_modified_fields
from fastapi_cacheinval.core.outcome import Outcome, cache_status
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.grammar.age import serialise_age
from fastapi_cacheinval.grammar.fields import RawHeaders

__all__ = [
    "SENT_PAST",
    "RawField",
    "hide_what_bypasses",
    "nowhere",
    "send_304",
    "send_response",
    "send_stored",
    "status_fields",
    "stored_fields",
    "without_body",
]

RawField = tuple[bytes, bytes]

# Messages, and the extensions of the same names, by which a server sends a file whose bytes never pass `send`.
SENT_PAST = frozenset({"http.response.pathsend", "http.response.zerocopysend"})


def status_fields(app_context: AppContext, outcome: Outcome) -> list[RawField]:
    """The `Cache-Status` field for an outcome, where it is wanted."""
    return [(b"cache-status", cache_status(outcome))] if app_context.emit_cache_status else []


async def send_304(send: Send, fields: list[RawField]) -> None:
    """Send the 304 that stands for a response with these fields."""
    await send({"type": "http.response.start", "status": 304, "headers": not_modified_fields(fields)})
    await send({"type": "http.response.body", "body": b""})


async def send_stored(
    send: Send, app_context: AppContext, stored: StoredResponse, request_headers: RawHeaders, outcome: Outcome
) -> None:
    """Send a stored response, or the 304 that stands for it."""
    await send_response(send, app_context, stored, request_headers, stored_fields(app_context, stored, outcome))


def stored_fields(app_context: AppContext, stored: StoredResponse, outcome: Outcome) -> list[RawField]:
    """The fields of an answer that is a stored response: its own, its age, and how it came."""
    age = max(0.0, outcome.age or 0.0)
    fields = client_fields(stored, age, -1 if outcome.ttl is None else outcome.ttl)
    if outcome.age is not None:
        fields.append((b"age", serialise_age(age)))
    return fields + status_fields(app_context, outcome)


async def send_response(
    send: Send, app_context: AppContext, stored: StoredResponse, request_headers: RawHeaders, fields: list[RawField]
) -> None:
    """Send a complete response with these fields, or the 304 that stands for it."""
    wall = app_context.cache.clock.wall()
    if not_modified(request_headers, stored.status, stored.etag, stored.last_modified, wall):
        await send_304(send, fields)
        return
    await send({"type": "http.response.start", "status": stored.status, "headers": fields})
    await send({"type": "http.response.body", "body": stored.body})


def hide_what_bypasses(scope: Scope) -> None:
    """Let the app see no extension by which its response would not pass `send`."""
    extensions = scope.get("extensions")
    if extensions and not SENT_PAST.isdisjoint(extensions):
        scope["extensions"] = {name: value for name, value in extensions.items() if name not in SENT_PAST}


def without_body(send: Send) -> Send:
    """A `send` for HEAD: the same fields, no content."""

    async def send_head(message: Message) -> None:
        kind = message["type"]
        if kind in SENT_PAST or (kind == "http.response.body" and message.get("body")):
            message = {"type": "http.response.body", "body": b"", "more_body": message.get("more_body", False)}
        await send(message)

    return send_head


async def nowhere(message: Message) -> None:
    """Where messages go that nobody needs."""
